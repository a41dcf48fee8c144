use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Text};

use super::row::{Row, RowSql, Rows, columns, weight};
use crate::reader::{Chunk, Filter, Late, Position, ReadLimit};

type StepSql = (Nullable<Text>, BigInt, BigInt, Nullable<RowSql>);
type Step = (Option<String>, i64, i64, Option<Row>);

/// Reads on from a position; see [`crate::reader`].
pub(crate) fn read(
    conn: &mut PgConnection,
    from: &Position,
    filter: &Filter,
    limit: ReadLimit,
) -> QueryResult<Chunk> {
    match &from.late {
        None => step(conn, from, filter, limit),
        Some(late) => late_piece(conn, from, late, filter, limit),
    }
}

/// Marks the rows of `picked` that pass the filter `f`, and how many bytes of the limit are used up
/// before each.
macro_rules! sized {
    () => {
        concat!(
            ", marked AS (
                 SELECT p.*, ((SELECT kinds FROM f) IS NULL OR p.kind = ANY ((SELECT kinds FROM f)::text[]))
                     AND ((SELECT exchanges FROM f) IS NULL OR p.exchange = ANY ((SELECT exchanges FROM f)::text[]))
                     AS wanted
                 FROM picked p
             ), sized AS (
                 SELECT marked.*, row_number() OVER w AS n, sum(",
            weight!(),
            ") OVER w - ",
            weight!(),
            " AS before
                 FROM marked WINDOW w AS (ORDER BY seq ROWS UNBOUNDED PRECEDING)
             )"
        )
    };
}

/// The rows of one transaction `x` behind a place, by the index on xid and place. As comparisons of
/// pairs: of `xid = x.xid` the planner believes, where one transaction wrote most of the log, that it finds many on a
/// walk over the primary key, and walks all of it for none.
macro_rules! of_one {
    () => {
        " CROSS JOIN LATERAL (
             SELECT m.seq FROM outbox_messages m WHERE (m.xid, m.seq) > (x.xid, "
    };
}

fn step(
    conn: &mut PgConnection,
    from: &Position,
    filter: &Filter,
    limit: ReadLimit,
) -> QueryResult<Chunk> {
    let rows = i64::from(limit.rows);
    // The values are bound anew with each run and never through a cached plan: the planner must see
    // the snapshot's xmax to know that the range above it is short. OFFSET 0 keeps the ORDER BY from
    // being pushed down to a walk over the whole primary key, and the late rows from being joined by a
    // scan of the whole log, which a planner without statistics takes for shorter. Each LIMIT is a number, for
    // of any other the planner expects a tenth of what there is: of millions of rows.
    let query = diesel::dsl::sql::<StepSql>("WITH f AS MATERIALIZED (SELECT ")
        .bind::<Nullable<Array<Text>>, _>(&filter.kinds)
        .sql("::text[] AS kinds, ")
        .bind::<Nullable<Array<Text>>, _>(&filter.exchanges)
        .sql(
            "::text[] AS exchanges), s AS MATERIALIZED (
                 SELECT pg_current_snapshot() AS now, (SELECT last_value FROM outbox_messages_seq_seq) AS last
             ), late AS MATERIALIZED (
                 SELECT seq FROM (
                     SELECT o.seq FROM (SELECT pg_snapshot_xip(",
        )
        .bind::<Text, _>(&from.snapshot)
        .sql(concat!("::text::pg_snapshot) AS xid EXCEPT SELECT pg_snapshot_xip(now) FROM s) x", of_one!()))
        .bind::<BigInt, _>(0)
        .sql(") AND (m.xid, m.seq) <= (x.xid, ")
        .bind::<BigInt, _>(from.seq)
        .sql(") ORDER BY m.xid, m.seq LIMIT ")
        .bind::<BigInt, _>(rows)
        .sql(") o")
        .sql(" UNION ALL SELECT seq FROM outbox_messages WHERE xid >= pg_snapshot_xmax(")
        .bind::<Text, _>(&from.snapshot)
        .sql("::text::pg_snapshot) AND seq <= ")
        .bind::<BigInt, _>(from.seq)
        .sql(" OFFSET 0) AS either ORDER BY seq LIMIT ")
        .bind::<BigInt, _>(rows)
        .sql(
            "), picked AS (
                 SELECT m.*, true AS late FROM late CROSS JOIN LATERAL (
                     SELECT * FROM outbox_messages o WHERE o.seq = late.seq OFFSET 0) m
                 UNION ALL
                 (SELECT m.*, false AS late FROM outbox_messages m WHERE m.seq > ",
        )
        .bind::<BigInt, _>(from.seq)
        .sql(" ORDER BY m.seq LIMIT ")
        .bind::<BigInt, _>(rows)
        .sql(concat!(
            "))",
            sized!(),
            " SELECT CASE WHEN r.n IS NULL OR r.n = 1 THEN s.now::text END, s.last, (SELECT count(*) FROM late), ",
            columns!(),
            " FROM s LEFT JOIN sized r ON r.before < "
        ))
        .bind::<BigInt, _>(limit.bytes.min(i64::MAX as u64).cast_signed())
        .sql(" AND r.n <= ")
        .bind::<BigInt, _>(rows)
        .sql(" ORDER BY r.seq");
    let steps: Vec<Step> = query.load(conn)?;

    let mut steps = steps.into_iter();
    let Some((now, last, late_found, first)) = steps.next() else {
        return Err(diesel::result::Error::NotFound);
    };
    let now = now.unwrap_or_default();
    let read = Rows::of(first.into_iter().chain(steps.filter_map(|step| step.3)), limit);
    let late_complete = read.late == late_found && late_found < i64::from(limit.rows);
    let next = match read.last_late {
        // Some of the late rows are left: page through them before anything else.
        Some(seq) if !late_complete => {
            Position { late: Some(Late { seq, snapshot: now }), ..from.clone() }
        }
        _ => {
            let read_to = read.last.unwrap_or(from.seq).max(from.seq);
            let seq = if read.exhausted { read_to.max(last) } else { read_to };
            Position { seq, snapshot: now, late: None }
        }
    };
    let Rows { entries, passed_over, exhausted, .. } = read;
    Ok(Chunk { entries, passed_over, next, exhausted })
}

/// The next piece of a large late transaction. Each transaction that was open is looked up from where
/// the last piece ended, so what a piece costs does not grow with the log between its rows.
fn late_piece(
    conn: &mut PgConnection,
    from: &Position,
    late: &Late,
    filter: &Filter,
    limit: ReadLimit,
) -> QueryResult<Chunk> {
    let rows = i64::from(limit.rows);
    let query = diesel::dsl::sql::<RowSql>("WITH f AS MATERIALIZED (SELECT ")
        .bind::<Nullable<Array<Text>>, _>(&filter.kinds)
        .sql("::text[] AS kinds, ")
        .bind::<Nullable<Array<Text>>, _>(&filter.exchanges)
        .sql("::text[] AS exchanges), p AS MATERIALIZED (SELECT ")
        .bind::<Text, _>(&from.snapshot)
        .sql("::text::pg_snapshot AS was, ")
        .bind::<Text, _>(&late.snapshot)
        .sql("::text::pg_snapshot AS late, ")
        .bind::<BigInt, _>(late.seq)
        .sql("::bigint AS after, ")
        .bind::<BigInt, _>(from.seq)
        .sql(
            "::bigint AS upto), found AS MATERIALIZED (
                 SELECT o.seq FROM (
                     SELECT pg_snapshot_xip(was) AS xid FROM p EXCEPT SELECT pg_snapshot_xip(late) FROM p
                 ) x",
        )
        .sql(concat!(of_one!(), "(SELECT after FROM p)) AND (m.xid, m.seq) <= (x.xid, (SELECT upto FROM p))
                     ORDER BY m.xid, m.seq LIMIT "))
        .bind::<BigInt, _>(rows)
        .sql(
            ") o
                 UNION ALL
                 SELECT m.seq FROM outbox_messages m
                 WHERE m.xid >= (SELECT pg_snapshot_xmax(was) FROM p)
                   AND m.seq > (SELECT after FROM p) AND m.seq <= (SELECT upto FROM p)
                   AND pg_visible_in_snapshot(m.xid, (SELECT late FROM p))
             ), nearest AS MATERIALIZED (SELECT seq FROM found ORDER BY seq LIMIT ",
        )
        .bind::<BigInt, _>(rows)
        .sql(concat!(
            "), picked AS (SELECT m.*, true AS late FROM nearest CROSS JOIN LATERAL (
                 SELECT * FROM outbox_messages o WHERE o.seq = nearest.seq OFFSET 0) m)",
            sized!(),
            " SELECT ",
            columns!(),
            " FROM sized r WHERE r.before < "
        ))
        .bind::<BigInt, _>(limit.bytes.min(i64::MAX as u64).cast_signed())
        .sql(" ORDER BY r.seq");
    let read = Rows::of(query.load::<Row>(conn)?.into_iter(), limit);
    let next = match read.last {
        Some(seq) if !read.exhausted => {
            let late = Late { seq, snapshot: late.snapshot.clone() };
            Position { late: Some(late), ..from.clone() }
        }
        _ => Position { seq: from.seq, snapshot: late.snapshot.clone(), late: None },
    };
    // There may be fresh rows, which no piece looks at.
    Ok(Chunk { entries: read.entries, passed_over: read.passed_over, next, exhausted: false })
}
