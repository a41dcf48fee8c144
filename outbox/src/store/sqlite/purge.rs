use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool};
use diesel::sqlite::SqliteConnection;

use super::cursor::now;
use crate::admin::Purged;
use crate::row::micros;

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    doomed: i64,
    #[diesel(sql_type = BigInt)]
    next: i64,
    #[diesel(sql_type = Bool)]
    done: bool,
}

/// The next rows in order, with what stops the walk and what only is to be left alone, and of them
/// the doomed ones. A cursor has handed on what is below it, and nothing else.
macro_rules! doomed {
    () => {
        concat!(
            "WITH batch AS MATERIALIZED (
                 SELECT m.seq, m.created_at >= ",
            now!(),
            " - ?2 OR m.seq > (SELECT min(c.seq) FROM outbox_cursors c) AS stops
                 FROM outbox_messages m
                 WHERE m.seq > ?1 AND EXISTS (SELECT 1 FROM outbox_cursors)
                 ORDER BY m.seq LIMIT ?3
             ), until AS MATERIALIZED (
                 SELECT min(seq) FILTER (WHERE stops) AS stop, max(seq) AS last, count(*) AS looked_at FROM batch
             ), doomed AS MATERIALIZED (
                 SELECT seq FROM batch
                 WHERE seq < coalesce((SELECT stop FROM until), 9223372036854775807)
                   AND NOT EXISTS (SELECT 1 FROM outbox_cursors c JOIN outbox_holds h ON h.cursor = c.name AND h.seq = batch.seq)
             )"
        )
    };
}

/// Deletes one batch of what every cursor has handed on.
pub(crate) fn purge(
    conn: &mut SqliteConnection,
    older_than: Duration,
    from: i64,
    rows: u32,
) -> QueryResult<Purged> {
    conn.immediate_transaction(|conn| {
        let purged = purgeable(conn, older_than, from, rows)?;
        if purged.deleted == 0 {
            return Ok(purged);
        }
        // The clock has moved on between the two statements: what became old meanwhile waits for
        // the next batch, which must not pass it.
        let deleted = diesel::sql_query(concat!(
            doomed!(),
            "DELETE FROM outbox_messages WHERE seq <= ?4 AND seq IN (SELECT seq FROM doomed)"
        ))
        .bind::<BigInt, _>(from)
        .bind::<BigInt, _>(micros(older_than))
        .bind::<BigInt, _>(i64::from(rows))
        .bind::<BigInt, _>(purged.next)
        .execute(conn)?;
        Ok(Purged { deleted: deleted as u64, ..purged })
    })
}

/// What [`purge`] would delete.
pub(crate) fn purgeable(
    conn: &mut SqliteConnection,
    older_than: Duration,
    from: i64,
    rows: u32,
) -> QueryResult<Purged> {
    let row: Row = diesel::sql_query(concat!(
        doomed!(),
        "SELECT (SELECT count(*) FROM doomed) AS doomed,
                coalesce((SELECT max(seq) FROM batch WHERE seq < coalesce(until.stop, 9223372036854775807)), ?1) AS next,
                until.stop IS NOT NULL OR until.looked_at < ?3 AS done
         FROM until"
    ))
    .bind::<BigInt, _>(from)
    .bind::<BigInt, _>(micros(older_than))
    .bind::<BigInt, _>(i64::from(rows))
    .get_result(conn)?;
    Ok(Purged { deleted: row.doomed.max(0).unsigned_abs(), next: row.next, done: row.done })
}
