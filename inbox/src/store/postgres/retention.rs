use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::sql_types::{BigInt, Nullable};
use diesel::{QueryResult, RunQueryDsl};

use crate::Consumer;
use crate::retention::Dropped;
use crate::store::statement::{Bind, Statement};

/// Deletes the oldest operations, but none of which a message is still parked: once decided about, it would
/// be applied again. One that a duplicate has locked is passed over: neither may wait for
/// the other.
///
/// The collation is the index's, see the migration that made it.
/// `statement_timestamp()`, not `clock_timestamp()`: a volatile bound would make the index useless.
pub(crate) fn delete_operations<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    window: i64,
    rows: i64,
) -> QueryResult<i64> {
    Statement::<3>::new(
        "DELETE FROM inbox_operations WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM inbox_operations AS o
             WHERE consumer COLLATE \"C\" = ? AND applied_at < statement_timestamp() - ? * interval '1 microsecond'
             AND NOT EXISTS (SELECT 1 FROM inbox_parked AS p
                             WHERE p.consumer = o.consumer AND p.scope = o.scope AND p.operation = o.operation)
             ORDER BY applied_at LIMIT ? FOR UPDATE OF o SKIP LOCKED))",
        [Bind::Text(consumer.0), Bind::BigInt(window), Bind::BigInt(rows)],
    )
    .execute(conn)
    .map(count)
}

/// Drops the results of the oldest operations claimed after `from`; all that were claimed at the same
/// moment as the last one of them are taken along, because the walk goes on after that moment.
pub(crate) fn drop_results<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    window: i64,
    from: i64,
    rows: i64,
) -> QueryResult<Dropped> {
    type Columns = (BigInt, BigInt, Nullable<BigInt>);
    let (dropped, looked_at, last) = Statement::<5, Columns>::new(
        "WITH batch AS MATERIALIZED (
             SELECT applied_at FROM inbox_operations
             WHERE consumer COLLATE \"C\" = ? AND applied_at > to_timestamp(0) + ? * interval '1 microsecond'
               AND applied_at < statement_timestamp() - ? * interval '1 microsecond'
             ORDER BY applied_at LIMIT ?
         ), until AS MATERIALIZED (
             SELECT min(applied_at) AS first, max(applied_at) AS last, count(*) AS looked_at FROM batch
         ), dropped AS (
             UPDATE inbox_operations SET result = NULL, result_dropped_at = clock_timestamp()
             WHERE consumer COLLATE \"C\" = ? AND applied_at >= (SELECT first FROM until) AND applied_at <= (SELECT last FROM until)
               AND result IS NOT NULL
             RETURNING 1
         )
         SELECT (SELECT count(*) FROM dropped), looked_at, CAST(extract(epoch FROM last) * 1000000 AS bigint)
         FROM until",
        [
            Bind::Text(consumer.0),
            Bind::BigInt(from),
            Bind::BigInt(window),
            Bind::BigInt(rows),
            Bind::Text(consumer.0),
        ],
    )
    .get_result::<(i64, i64, Option<i64>)>(conn)?;
    Ok(Dropped { dropped, looked_at, last })
}

/// Deletes counts of starts.
pub(crate) fn delete_starts<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    window: i64,
    rows: i64,
) -> QueryResult<i64> {
    Statement::<3>::new(
        "DELETE FROM inbox_starts WHERE (consumer, digest) IN (
             SELECT consumer, digest FROM inbox_starts
             WHERE consumer = ? AND started_at < statement_timestamp() - ? * interval '1 microsecond'
             ORDER BY started_at LIMIT ?)",
        [Bind::Text(consumer.0), Bind::BigInt(window), Bind::BigInt(rows)],
    )
    .execute(conn)
    .map(count)
}

/// Deletes parked messages that wait for a decision. The state stands twice: one that an operator sets
/// going meanwhile stays.
pub(crate) fn delete_parked<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    window: i64,
    rows: i64,
) -> QueryResult<i64> {
    Statement::<3>::new(
        "DELETE FROM inbox_parked WHERE state = 'review' AND id IN (
             SELECT id FROM inbox_parked
             WHERE consumer = ? AND state = 'review'
               AND last_parked_at < statement_timestamp() - ? * interval '1 microsecond'
             ORDER BY id LIMIT ?)",
        [Bind::Text(consumer.0), Bind::BigInt(window), Bind::BigInt(rows)],
    )
    .execute(conn)
    .map(count)
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
