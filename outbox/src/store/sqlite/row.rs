//! A row of the log as the statements of this store select it.

use std::str::FromStr;

use diesel::QueryResult;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable};
use message::{Headers, Message, MessageId};

use crate::reader::{Entry, ReadLimit};
use crate::row::time_of;

/// Text comes as bytes: SQLite keeps text that is not UTF-8, and one such row must not stop the log.
pub(super) type RowSql = (
    BigInt,
    Bool,
    Bool,
    Binary,
    Binary,
    Binary,
    Nullable<Binary>,
    Binary,
    Binary,
    Binary,
    Binary,
    Binary,
    BigInt,
);
type Bytes = Vec<u8>;
pub(super) type Row =
    (i64, bool, bool, Bytes, Bytes, Bytes, Option<Bytes>, Bytes, Bytes, Bytes, Bytes, Bytes, i64);

/// The columns of [`RowSql`] after `seq` and `wanted`, of `outbox_messages m`.
macro_rules! columns {
    () => {
        "coalesce(m.deliver_after > unixepoch('subsec') * 1000000, 0), CAST(m.id AS BLOB), CAST(m.kind AS BLOB),
         CAST(m.operation AS BLOB), CAST(m.ordering_key AS BLOB), CAST(m.exchange AS BLOB),
         CAST(coalesce(m.routing_key, m.kind) AS BLOB), CAST(m.headers AS BLOB), CAST(m.content_type AS BLOB),
         m.payload, m.created_at"
    };
}
pub(super) use columns;

/// Rows as read: those wanted, and what they all were together.
pub(super) struct Rows {
    pub(super) entries: Vec<Entry>,
    pub(super) passed_over: usize,
    /// The last row's place, wanted or not.
    pub(super) last: Option<i64>,
    /// Whether there was nothing more to read within the limit.
    pub(super) exhausted: bool,
}

impl Rows {
    /// Row by row and not as a whole: what is beyond the limit of bytes is never fetched.
    pub(super) fn of(
        rows: impl Iterator<Item = QueryResult<Row>>,
        limit: ReadLimit,
    ) -> QueryResult<Self> {
        let mut all = Self { entries: Vec::new(), passed_over: 0, last: None, exhausted: false };
        let (mut count, mut bytes) = (0, 0);
        for row in rows {
            let row = row?;
            count += 1;
            all.last = Some(row.0);
            if row.1 {
                bytes += row.11.len() as u64 + ReadLimit::ROW_OVERHEAD;
                all.entries.push(entry(row));
            } else {
                bytes += ReadLimit::ROW_OVERHEAD;
                all.passed_over += 1;
            }
            if bytes >= limit.bytes {
                break;
            }
        }
        all.exhausted = limit.unmet_by(count, bytes);
        Ok(all)
    }
}

pub(super) fn entry(row: Row) -> Entry {
    let (
        seq,
        _,
        delayed,
        id,
        kind,
        operation,
        ordering_key,
        exchange,
        routing_key,
        headers,
        content_type,
        payload,
        at,
    ) = row;
    let mut defect = None;
    let mut text = |column: &str, bytes: Bytes| {
        String::from_utf8(bytes).unwrap_or_else(|error| {
            defect = Some(format!("its {column} is not UTF-8"));
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        })
    };
    let id = text("id", id);
    let mut message = Message {
        id: MessageId::default(),
        kind: text("kind", kind),
        operation: text("operation", operation),
        ordering_key: ordering_key.map(|key| text("ordering_key", key)),
        exchange: text("exchange", exchange),
        routing_key: text("routing_key", routing_key),
        headers: Headers::new(),
        content_type: text("content_type", content_type),
        payload: payload.into(),
        created_at: time_of(at),
    };
    match Headers::from_json(&text("headers", headers)) {
        Ok(headers) => message.headers = headers,
        Err(error) => defect = Some(format!("its headers cannot be read: {error}")),
    }
    match MessageId::from_str(&id) {
        Ok(id) => message.id = id,
        Err(error) => defect = Some(format!("its id is not a UUID: {error}")),
    }
    Entry { seq, message, delayed, defect }
}
