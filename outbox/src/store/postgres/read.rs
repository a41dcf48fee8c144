use diesel::pg::PgConnection;
use diesel::pg::data_types::PgTimestamp;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text, Timestamptz, Uuid};
use message::{Headers, Message};

use crate::reader::{Chunk, Entry, Late, Position, ReadLimit};
use crate::row::time_of;

/// From PostgreSQL's epoch, 2000, to 1970, in microseconds.
const EPOCH_SHIFT: i64 = 946_684_800_000_000;

pub(super) type RowSql = (
    BigInt,
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
type StepSql = (Nullable<Text>, BigInt, BigInt, Nullable<RowSql>);
type Step = (Option<String>, i64, i64, Option<Row>);

/// The columns of [`RowSql`] after `seq` and `late`, of `outbox_messages m`.
macro_rules! columns {
    () => {
        "coalesce(m.deliver_after > clock_timestamp(), false) AS delayed, m.id, m.kind, m.operation,
         m.ordering_key, m.exchange, coalesce(m.routing_key, m.kind) AS routing_key,
         m.headers::text AS headers, m.content_type, m.payload, m.created_at"
    };
}
pub(super) use columns;

/// Reads on from a position; see [`crate::reader`].
pub(crate) fn read(
    conn: &mut PgConnection,
    from: &Position,
    limit: ReadLimit,
) -> QueryResult<Chunk> {
    match &from.late {
        None => step(conn, from, limit),
        Some(late) => late_piece(conn, from, late, limit),
    }
}

fn step(conn: &mut PgConnection, from: &Position, limit: ReadLimit) -> QueryResult<Chunk> {
    let rows = i64::from(limit.rows);
    // The values are bound anew with each run and never through a cached plan: the planner must see
    // the snapshot's xmax to know that the range above it is short. OFFSET 0 keeps the ORDER BY from
    // being pushed down to a walk over the whole primary key.
    let query = diesel::dsl::sql::<StepSql>(
        "WITH s AS MATERIALIZED (
             SELECT pg_current_snapshot() AS now, (SELECT last_value FROM outbox_messages_seq_seq) AS last
         ), late AS MATERIALIZED (
             SELECT seq FROM (
                 SELECT seq FROM outbox_messages
                 WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(",
    )
    .bind::<Text, _>(&from.snapshot)
    .sql("::text::pg_snapshot) EXCEPT SELECT pg_snapshot_xip(now) FROM s)) AND seq <= ")
    .bind::<BigInt, _>(from.seq)
    .sql(" UNION ALL SELECT seq FROM outbox_messages WHERE xid >= pg_snapshot_xmax(")
    .bind::<Text, _>(&from.snapshot)
    .sql("::text::pg_snapshot) AND seq <= ")
    .bind::<BigInt, _>(from.seq)
    .sql(" OFFSET 0) AS either ORDER BY seq LIMIT ")
    .bind::<BigInt, _>(rows)
    .sql(concat!(
        "), picked AS (
             SELECT m.seq, true AS late, ",
        columns!(),
        " FROM late JOIN outbox_messages m USING (seq)
             UNION ALL
             (SELECT m.seq, false AS late, ",
        columns!(),
        " FROM outbox_messages m WHERE m.seq > "
    ))
    .bind::<BigInt, _>(from.seq)
    .sql(" ORDER BY m.seq LIMIT greatest(0, ")
    .bind::<BigInt, _>(rows)
    .sql(
        " - (SELECT count(*) FROM late)))
         ), sized AS (
             SELECT picked.*, row_number() OVER w AS n,
                    sum(octet_length(payload) + 512) OVER w - (octet_length(payload) + 512) AS before
             FROM picked WINDOW w AS (ORDER BY seq ROWS UNBOUNDED PRECEDING)
         )
         SELECT CASE WHEN r.n IS NULL OR r.n = 1 THEN s.now::text END, s.last, (SELECT count(*) FROM late),
                r.seq, r.late, r.delayed, r.id, r.kind, r.operation, r.ordering_key, r.exchange,
                r.routing_key, r.headers, r.content_type, r.payload, r.created_at
         FROM s LEFT JOIN sized r ON r.before < ",
    )
    .bind::<BigInt, _>(limit.bytes.min(i64::MAX as u64).cast_signed())
    .sql(" ORDER BY r.seq");
    let steps: Vec<Step> = query.load(conn)?;

    let mut steps = steps.into_iter();
    let Some((now, last, late_found, first)) = steps.next() else {
        return Err(diesel::result::Error::NotFound);
    };
    let now = now.unwrap_or_default();
    let rows: Vec<Row> = first.into_iter().chain(steps.filter_map(|step| step.3)).collect();
    let late_read = rows.iter().filter(|row| row.1).count() as i64;
    let last_late = rows.iter().rev().find(|row| row.1).map(|row| row.0);
    let entries: Vec<Entry> = rows.into_iter().map(entry).collect();
    let exhausted = limit.unmet_by(&entries);
    let late_complete = late_read == late_found && late_found < i64::from(limit.rows);
    let next = match last_late {
        // Some of the late rows are left: page through them before anything else.
        Some(seq) if !late_complete => {
            Position { late: Some(Late { seq, snapshot: now }), ..from.clone() }
        }
        _ => {
            let read_to = entries.last().map_or(from.seq, |entry| entry.seq).max(from.seq);
            let seq = if exhausted { read_to.max(last) } else { read_to };
            Position { seq, snapshot: now, late: None }
        }
    };
    Ok(Chunk { entries, next, exhausted })
}

/// The next piece of a large late transaction. Walks the primary key from where the last piece
/// ended, so all pieces together walk it once.
fn late_piece(
    conn: &mut PgConnection,
    from: &Position,
    late: &Late,
    limit: ReadLimit,
) -> QueryResult<Chunk> {
    let query = diesel::dsl::sql::<RowSql>(concat!(
        "WITH picked AS (SELECT m.seq, true AS late, ",
        columns!(),
        " FROM outbox_messages m WHERE m.seq > "
    ))
    .bind::<BigInt, _>(late.seq)
    .sql(" AND m.seq <= ")
    .bind::<BigInt, _>(from.seq)
    .sql(" AND pg_visible_in_snapshot(m.xid, ")
    .bind::<Text, _>(&late.snapshot)
    .sql("::text::pg_snapshot) AND NOT pg_visible_in_snapshot(m.xid, ")
    .bind::<Text, _>(&from.snapshot)
    .sql("::text::pg_snapshot) ORDER BY m.seq LIMIT ")
    .bind::<BigInt, _>(i64::from(limit.rows))
    .sql(
        "), sized AS (
             SELECT picked.*, sum(octet_length(payload) + 512) OVER w - (octet_length(payload) + 512) AS before
             FROM picked WINDOW w AS (ORDER BY seq ROWS UNBOUNDED PRECEDING)
         )
         SELECT r.seq, r.late, r.delayed, r.id, r.kind, r.operation, r.ordering_key, r.exchange,
                r.routing_key, r.headers, r.content_type, r.payload, r.created_at
         FROM sized r WHERE r.before < ",
    )
    .bind::<BigInt, _>(limit.bytes.min(i64::MAX as u64).cast_signed())
    .sql(" ORDER BY r.seq");
    let rows: Vec<Row> = query.load(conn)?;
    let entries: Vec<Entry> = rows.into_iter().map(entry).collect();
    let next = match entries.last() {
        Some(last) if !limit.unmet_by(&entries) => {
            let late = Late { seq: last.seq, snapshot: late.snapshot.clone() };
            Position { late: Some(late), ..from.clone() }
        }
        _ => Position { seq: from.seq, snapshot: late.snapshot.clone(), late: None },
    };
    // There may be fresh rows, which no piece looks at.
    Ok(Chunk { entries, next, exhausted: false })
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
