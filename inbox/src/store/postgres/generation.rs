use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::sql_types::{BigInt, Nullable};
use diesel::{OptionalExtension, QueryResult, RunQueryDsl};

use crate::Consumer;
use crate::rebuild::Generations;
use crate::store::generation::{Stored, generations_of};
use crate::store::statement::{Bind, Statement};

/// Gives out the next generation; `None` where one is being built.
pub(crate) fn begin_generation<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
) -> QueryResult<Option<i64>> {
    Statement::<1, BigInt>::new(
        "INSERT INTO inbox_generations AS g (consumer, building, newest) VALUES (?, 2, 2)
         ON CONFLICT (consumer) DO UPDATE SET building = g.newest + 1, newest = g.newest + 1,
             started_at = clock_timestamp(), caught_up_at = NULL
         WHERE g.building IS NULL
         RETURNING building",
        [Bind::Text(consumer.0)],
    )
    .get_result(conn)
    .optional()
}

/// Says that the generation being built has everything; false where it is not being built, or parked
/// messages say otherwise.
pub(crate) fn mark_caught_up<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    generation: i64,
    own: &str,
) -> QueryResult<bool> {
    Statement::<3>::new(
        "UPDATE inbox_generations SET caught_up_at = clock_timestamp()
         WHERE consumer = ? AND building = ? AND NOT EXISTS (SELECT FROM inbox_parked p WHERE p.consumer = ?)",
        [Bind::Text(consumer.0), Bind::BigInt(generation), Bind::Text(own)],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Makes the generation being built the active one, if it has caught up and nothing of it is parked.
pub(crate) fn switch_generation<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    generation: i64,
    own: &str,
) -> QueryResult<bool> {
    Statement::<3>::new(
        "UPDATE inbox_generations SET active = building, building = NULL, caught_up_at = NULL,
             switched_at = clock_timestamp()
         WHERE consumer = ? AND building = ? AND caught_up_at IS NOT NULL
           AND NOT EXISTS (SELECT FROM inbox_parked p WHERE p.consumer = ?)",
        [Bind::Text(consumer.0), Bind::BigInt(generation), Bind::Text(own)],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Gives up the generation that is being built.
pub(crate) fn abandon_generation<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    generation: i64,
) -> QueryResult<bool> {
    Statement::<2>::new(
        "UPDATE inbox_generations SET building = NULL, caught_up_at = NULL WHERE consumer = ? AND building = ?",
        [Bind::Text(consumer.0), Bind::BigInt(generation)],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// How a consumer's generations stand.
pub(crate) fn generations<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
) -> QueryResult<Option<Generations>> {
    type Columns = (BigInt, Nullable<BigInt>, BigInt, BigInt, Nullable<BigInt>, Nullable<BigInt>);
    let found: Option<Stored> = Statement::<1, Columns>::new(
        "SELECT active, building, newest, CAST(extract(epoch FROM started_at) * 1000000 AS bigint),
                CAST(extract(epoch FROM caught_up_at) * 1000000 AS bigint),
                CAST(extract(epoch FROM switched_at) * 1000000 AS bigint)
         FROM inbox_generations WHERE consumer = ?",
        [Bind::Text(consumer.0)],
    )
    .get_result(conn)
    .optional()?;
    Ok(found.map(generations_of))
}

/// Deletes a batch of what is kept under a generation's name.
pub(crate) fn forget_generation<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    own: &str,
    batch: i64,
) -> QueryResult<usize> {
    let mut deleted = 0;
    for text in [
        "DELETE FROM inbox_operations WHERE consumer = ? AND (scope, operation) IN (
             SELECT o.scope, o.operation FROM inbox_operations o WHERE o.consumer = ? LIMIT ?)",
        "DELETE FROM inbox_parked WHERE consumer = ? AND id IN (
             SELECT p.id FROM inbox_parked p WHERE p.consumer = ? LIMIT ?)",
        "DELETE FROM inbox_starts WHERE consumer = ? AND digest IN (
             SELECT s.digest FROM inbox_starts s WHERE s.consumer = ? LIMIT ?)",
    ] {
        let left = batch - i64::try_from(deleted).unwrap_or(batch);
        let binds = [Bind::Text(own), Bind::Text(own), Bind::BigInt(left)];
        deleted += Statement::<3>::new(text, binds).execute(conn)?;
    }
    Ok(deleted)
}

/// Records one step with who and why.
pub(crate) fn record_generation<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    (actor, reason): (&str, &str),
    action: &str,
    detail: &str,
) -> QueryResult<()> {
    Statement::<5>::new(
        "INSERT INTO inbox_audit (actor, action, consumer, reason, detail) VALUES (?, ?, ?, ?, CAST(? AS jsonb))",
        [
            Bind::Text(actor),
            Bind::Text(action),
            Bind::Text(consumer.0),
            Bind::Text(reason),
            Bind::Text(detail),
        ],
    )
    .execute(conn)
    .map(drop)
}
