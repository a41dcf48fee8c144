use std::str::FromStr;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable};
use diesel::sqlite::SqliteConnection;
use message::{Headers, Message, MessageId};

use crate::reader::{Chunk, Entry, Position, ReadLimit};
use crate::row::time_of;

/// Text comes as bytes: SQLite keeps text that is not UTF-8, and one such row must not stop the log.
pub(super) type RowSql = (
    BigInt,
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
    (i64, bool, Bytes, Bytes, Bytes, Option<Bytes>, Bytes, Bytes, Bytes, Bytes, Bytes, i64);

/// The columns of [`RowSql`] after `seq`, of `outbox_messages m`.
macro_rules! columns {
    () => {
        "coalesce(m.deliver_after > unixepoch('subsec') * 1000000, 0), CAST(m.id AS BLOB), CAST(m.kind AS BLOB),
         CAST(m.operation AS BLOB), CAST(m.ordering_key AS BLOB), CAST(m.exchange AS BLOB),
         CAST(coalesce(m.routing_key, m.kind) AS BLOB), CAST(m.headers AS BLOB), CAST(m.content_type AS BLOB),
         m.payload, m.created_at"
    };
}
pub(super) use columns;

/// Reads on from a position: seq order is commit order here; see [`crate::reader`].
pub(crate) fn read(
    conn: &mut SqliteConnection,
    from: &Position,
    limit: ReadLimit,
) -> QueryResult<Chunk> {
    let query = diesel::dsl::sql::<RowSql>(concat!(
        "SELECT m.seq, ",
        columns!(),
        " FROM outbox_messages m WHERE m.seq > "
    ))
    .bind::<BigInt, _>(from.seq)
    .sql(" ORDER BY m.seq LIMIT ")
    .bind::<BigInt, _>(i64::from(limit.rows));
    // Row by row and not as a whole: what is beyond the limit of bytes is never fetched.
    let mut entries: Vec<Entry> = Vec::new();
    let mut bytes = 0;
    for row in query.load_iter::<Row, _>(conn)? {
        let entry = entry(row?);
        bytes += entry.message.payload.len() as u64 + ReadLimit::ROW_OVERHEAD;
        entries.push(entry);
        if bytes >= limit.bytes {
            break;
        }
    }
    let exhausted = limit.unmet_by(&entries);
    let seq = entries.last().map_or(from.seq, |entry| entry.seq);
    Ok(Chunk { entries, next: Position { seq, ..from.clone() }, exhausted })
}

pub(super) fn entry(row: Row) -> Entry {
    let (
        seq,
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
