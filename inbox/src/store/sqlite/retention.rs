use diesel::connection::LoadConnection;
use diesel::sql_types::{BigInt, Nullable};
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, RunQueryDsl};

use crate::Consumer;
use crate::retention::Dropped;
use crate::store::statement::{Bind, Statement};

/// Deletes the oldest operations, but none of which a message is still parked: once decided about, it would
/// be applied again.
pub(crate) fn delete_operations<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    window: i64,
    rows: i64,
) -> QueryResult<i64> {
    Statement::<3>::new(
        "DELETE FROM inbox_operations WHERE (consumer, scope, operation) IN (
             SELECT consumer, scope, operation FROM inbox_operations AS o
             WHERE consumer = ? AND applied_at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?
             AND NOT EXISTS (SELECT 1 FROM inbox_parked AS p
                             WHERE p.consumer = o.consumer AND p.scope = o.scope AND p.operation = o.operation)
             ORDER BY applied_at LIMIT ?)",
        [Bind::Text(consumer.0), Bind::BigInt(window), Bind::BigInt(rows)],
    )
    .execute(conn)
    .map(count)
}

/// Drops the results of the oldest operations claimed after `from`; all that were claimed at the same
/// moment as the last one of them are taken along, because the walk goes on after that moment.
///
/// Two statements: a row older than `last` that another writer adds in between is no row of this
/// walk's, for it is claimed at its own moment, which is later.
pub(crate) fn drop_results<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    window: i64,
    from: i64,
    rows: i64,
) -> QueryResult<Dropped> {
    type Columns = (Nullable<BigInt>, Nullable<BigInt>, BigInt);
    let (first, last, looked_at) = Statement::<4, Columns>::new(
        "SELECT min(applied_at), max(applied_at), count(*) FROM (
             SELECT applied_at FROM inbox_operations
             WHERE consumer = ? AND applied_at > ?
               AND applied_at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?
             ORDER BY applied_at LIMIT ?)",
        [Bind::Text(consumer.0), Bind::BigInt(from), Bind::BigInt(window), Bind::BigInt(rows)],
    )
    .get_result::<(Option<i64>, Option<i64>, i64)>(conn)?;
    let Some((first, last)) = first.zip(last) else {
        return Ok(Dropped { dropped: 0, looked_at, last: None });
    };
    let dropped = Statement::<3>::new(
        "UPDATE inbox_operations SET
             result = NULL, result_dropped_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
         WHERE consumer = ? AND applied_at >= ? AND applied_at <= ? AND result IS NOT NULL",
        [Bind::Text(consumer.0), Bind::BigInt(first), Bind::BigInt(last)],
    )
    .execute(conn)?;
    Ok(Dropped { dropped: count(dropped), looked_at, last: Some(last) })
}

/// Deletes counts of starts.
pub(crate) fn delete_starts<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    window: i64,
    rows: i64,
) -> QueryResult<i64> {
    Statement::<3>::new(
        "DELETE FROM inbox_starts WHERE (consumer, digest) IN (
             SELECT consumer, digest FROM inbox_starts
             WHERE consumer = ? AND started_at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?
             ORDER BY started_at LIMIT ?)",
        [Bind::Text(consumer.0), Bind::BigInt(window), Bind::BigInt(rows)],
    )
    .execute(conn)
    .map(count)
}

/// Deletes parked messages that wait for a decision.
pub(crate) fn delete_parked<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    window: i64,
    rows: i64,
) -> QueryResult<i64> {
    Statement::<3>::new(
        "DELETE FROM inbox_parked WHERE id IN (
             SELECT id FROM inbox_parked
             WHERE consumer = ? AND state = 'review'
               AND last_parked_at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?
             ORDER BY id LIMIT ?)",
        [Bind::Text(consumer.0), Bind::BigInt(window), Bind::BigInt(rows)],
    )
    .execute(conn)
    .map(count)
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
