use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool};

use crate::admin::Purged;
use crate::row::micros;

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    deleted: i64,
    #[diesel(sql_type = BigInt)]
    next: i64,
    #[diesel(sql_type = Bool)]
    done: bool,
}

/// The next rows in order, with what stops the walk and what only is to be left alone, and of them
/// the doomed ones.
///
/// A cursor has handed on what is below it and visible in its snapshot. While it reads a large late
/// transaction in pieces, what is visible in the later snapshot too, as far as the pieces have come:
/// the rest of that transaction is below the cursor, committed, old perhaps, and not handed on.
///
/// All of it is one statement, so cursors, holds and rows agree: a hold is written with the advance
/// that passes its row. It locks nothing but the rows it deletes, and nobody else wants those.
macro_rules! doomed {
    () => {
        "WITH batch AS MATERIALIZED (
             SELECT m.seq,
                    m.created_at >= clock_timestamp() - $2 * interval '1 microsecond'
                    OR EXISTS (
                        SELECT FROM outbox_cursors c
                        WHERE NOT (m.seq <= c.seq
                                   AND (pg_visible_in_snapshot(m.xid, c.snapshot)
                                        OR (c.late_snapshot IS NOT NULL AND m.seq <= c.late_seq
                                            AND pg_visible_in_snapshot(m.xid, c.late_snapshot))))) AS stops
             FROM outbox_messages m
             WHERE m.seq > $1 AND EXISTS (SELECT FROM outbox_cursors)
             ORDER BY m.seq LIMIT $3
         ), until AS MATERIALIZED (
             SELECT min(seq) FILTER (WHERE stops) AS stop, max(seq) AS last, count(*) AS looked_at FROM batch
         ), held AS MATERIALIZED (
             SELECT h.seq FROM outbox_cursors c CROSS JOIN LATERAL (
                 SELECT seq FROM outbox_holds
                 WHERE cursor = c.name AND seq > $1 AND seq <= (SELECT last FROM until) OFFSET 0) h
         ), doomed AS MATERIALIZED (
             SELECT seq FROM batch
             WHERE seq < coalesce((SELECT stop FROM until), 9223372036854775807) AND seq NOT IN (SELECT seq FROM held)
         )"
    };
}

macro_rules! outcome {
    ($gone:literal) => {
        concat!(
            " SELECT (SELECT count(*) FROM ",
            $gone,
            ") AS deleted,
                 coalesce((SELECT max(seq) FROM batch WHERE seq < coalesce(until.stop, 9223372036854775807)), $1) AS next,
                 until.stop IS NOT NULL OR until.looked_at < $3 AS done
             FROM until"
        )
    };
}

/// Deletes one batch of what every cursor has handed on.
pub(crate) fn purge(
    conn: &mut PgConnection,
    older_than: Duration,
    from: i64,
    rows: u32,
) -> QueryResult<Purged> {
    // The array keeps the plan at the primary key, whatever the planner makes of the batch's size.
    run(
        conn,
        concat!(
            doomed!(),
            ", gone AS (DELETE FROM outbox_messages WHERE seq = ANY (ARRAY(SELECT seq FROM doomed)) RETURNING seq)",
            outcome!("gone")
        ),
        older_than,
        from,
        rows,
    )
}

/// What [`purge`] would delete.
pub(crate) fn purgeable(
    conn: &mut PgConnection,
    older_than: Duration,
    from: i64,
    rows: u32,
) -> QueryResult<Purged> {
    run(conn, concat!(doomed!(), outcome!("doomed")), older_than, from, rows)
}

fn run(
    conn: &mut PgConnection,
    sql: &str,
    older_than: Duration,
    from: i64,
    rows: u32,
) -> QueryResult<Purged> {
    let row: Row = diesel::sql_query(sql)
        .bind::<BigInt, _>(from)
        .bind::<BigInt, _>(micros(older_than))
        .bind::<BigInt, _>(i64::from(rows))
        .get_result(conn)?;
    Ok(Purged { deleted: row.deleted.max(0).unsigned_abs(), next: row.next, done: row.done })
}
