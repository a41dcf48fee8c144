//! A row of the log as the statements of this store select it.

use diesel::pg::data_types::PgTimestamp;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text, Timestamptz, Uuid};
use message::{Headers, Message};

use crate::reader::{Entry, ReadLimit};
use crate::row::time_of;

/// From PostgreSQL's epoch, 2000, to 1970, in microseconds.
const EPOCH_SHIFT: i64 = 946_684_800_000_000;

pub(super) type RowSql = (
    BigInt,
    Bool,
    Bool,
    Bool,
    Uuid,
    Text,
    Text,
    Nullable<Text>,
    Text,
    Text,
    Text,
    Text,
    Binary,
    Timestamptz,
);
pub(super) type Row = (
    i64,
    bool,
    bool,
    bool,
    uuid::Uuid,
    String,
    String,
    Option<String>,
    String,
    String,
    String,
    String,
    Vec<u8>,
    PgTimestamp,
);

/// The columns of [`RowSql`], of a row `r` of the log with `late` and `wanted` besides. What is not
/// wanted comes without headers and payload.
macro_rules! columns {
    () => {
        "r.seq, r.late, r.wanted, coalesce(r.deliver_after > clock_timestamp(), false), r.id, r.kind, r.operation,
         r.ordering_key, r.exchange, coalesce(r.routing_key, r.kind),
         CASE WHEN r.wanted THEN r.headers::text ELSE '{}' END, r.content_type,
         CASE WHEN r.wanted THEN r.payload ELSE '' END, r.created_at"
    };
}
pub(super) use columns;

/// What a row counts against the limit of bytes.
macro_rules! weight {
    () => {
        "(CASE WHEN wanted THEN octet_length(payload) ELSE 0 END + 512)"
    };
}
pub(super) use weight;

/// Rows as read: those wanted, and what they all were together.
pub(super) struct Rows {
    pub(super) entries: Vec<Entry>,
    pub(super) passed_over: usize,
    /// The last row's place, wanted or not.
    pub(super) last: Option<i64>,
    /// The last late row's place.
    pub(super) last_late: Option<i64>,
    pub(super) late: i64,
    /// Whether there was nothing more to read within the limit.
    pub(super) exhausted: bool,
}

impl Rows {
    pub(super) fn of(rows: impl Iterator<Item = Row>, limit: ReadLimit) -> Self {
        let mut all = Self {
            entries: Vec::with_capacity(rows.size_hint().0),
            passed_over: 0,
            last: None,
            last_late: None,
            late: 0,
            exhausted: false,
        };
        let (mut count, mut bytes) = (0, 0);
        for row in rows {
            count += 1;
            bytes += row.12.len() as u64 + ReadLimit::ROW_OVERHEAD;
            all.last = Some(row.0);
            if row.1 {
                all.last_late = Some(row.0);
                all.late += 1;
            }
            if row.2 {
                all.entries.push(entry(row));
            } else {
                all.passed_over += 1;
            }
        }
        all.exhausted = limit.unmet_by(count, bytes);
        all
    }
}

pub(super) fn entry(row: Row) -> Entry {
    let (
        seq,
        _,
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
    let (headers, defect) = match Headers::from_json(&headers) {
        Ok(headers) => (headers, None),
        Err(error) => (Headers::new(), Some(format!("its headers cannot be read: {error}"))),
    };
    let message = Message {
        id: id.into(),
        kind,
        operation,
        ordering_key,
        exchange,
        routing_key,
        headers,
        content_type,
        payload: payload.into(),
        created_at: time_of(at.0.saturating_add(EPOCH_SHIFT)),
    };
    Entry { seq, message, delayed, defect }
}
