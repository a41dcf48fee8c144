use diesel::connection::LoadConnection;
use diesel::sql_types::BigInt;
use diesel::sqlite::Sqlite;
use diesel::{OptionalExtension, QueryResult, RunQueryDsl};
use message::OperationKey;

use crate::Consumer;
use crate::effect::Held;
use crate::store::effect::{HeldColumns, HeldValues, NewEffect, first_values, held, held_values};
use crate::store::statement::{Bind, Statement};

/// The columns of a [`Held`].
macro_rules! held_columns {
    () => {
        "SELECT id, consumer, scope, operation, effect, provider_key, fingerprint, policy, state, attempts, epoch, owner,
                lease_until - CAST(unixepoch('subsec') * 1000000 AS INTEGER),
                asks, ask_at - CAST(unixepoch('subsec') * 1000000 AS INTEGER),
                result, error, unknown_since IS NOT NULL, review_since IS NOT NULL, late_at IS NOT NULL, late_result,
                decided_by IS NOT NULL,
                CAST(unixepoch('subsec') * 1000000 AS INTEGER) - coalesce(unknown_since, attempted_at)
         FROM inbox_effects "
    };
}

/// Writes an effect's first row unless it has one; its number if it was written.
pub(crate) fn insert_effect<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    row: &NewEffect<'_>,
) -> QueryResult<Option<i64>> {
    let key = row.key.to_string();
    Statement::<15, BigInt>::new(
        "INSERT INTO inbox_effects (consumer, scope, operation, effect, provider_key, fingerprint, policy, state,
                                    attempts, epoch, owner, lease_until, error, attempted_at, settled_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
                 CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?, ?,
                 CASE WHEN ? THEN CAST(unixepoch('subsec') * 1000000 AS INTEGER) END, CASE WHEN ? THEN CAST(unixepoch('subsec') * 1000000 AS INTEGER) END)
         ON CONFLICT (consumer, scope, operation, effect) DO NOTHING RETURNING id",
        first_values(row, &key),
    )
    .get_result(conn)
    .optional()
}

/// Reads the row of an effect, in a transaction that nobody else writes beside.
pub(crate) fn lock_effect<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    operation: &OperationKey,
    effect: &str,
) -> QueryResult<Option<Held>> {
    Statement::<4, HeldColumns>::new(
        concat!(
            held_columns!(),
            "WHERE consumer = ? AND scope = ? AND operation = ? AND effect = ?"
        ),
        [
            Bind::Text(consumer.0),
            Bind::Text(operation.scope()),
            Bind::Text(operation.id()),
            Bind::Text(effect),
        ],
    )
    .get_result::<HeldValues>(conn)
    .optional()?
    .map(held)
    .transpose()
}

/// The same by its number.
pub(crate) fn lock_effect_by<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    id: i64,
) -> QueryResult<Option<Held>> {
    Statement::<1, HeldColumns>::new(concat!(held_columns!(), "WHERE id = ?"), [Bind::BigInt(id)])
        .get_result::<HeldValues>(conn)
        .optional()?
        .map(held)
        .transpose()
}

/// Writes a row back; false where its epoch is not the one it was read with.
pub(crate) fn write_effect<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    held: &Held,
    epoch: i64,
) -> QueryResult<bool> {
    Statement::<19>::new(
        "UPDATE inbox_effects SET state = ?, policy = ?, fingerprint = ?,
                attempted_at = CASE WHEN attempts <> ? THEN CAST(unixepoch('subsec') * 1000000 AS INTEGER) ELSE attempted_at END,
                attempts = ?, epoch = ?, owner = ?,
                lease_until = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?,
                asks = ?, ask_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?,
                result = ?, error = ?,
                unknown_since = CASE WHEN ? THEN coalesce(unknown_since, attempted_at, CAST(unixepoch('subsec') * 1000000 AS INTEGER)) END,
                review_since = CASE WHEN ? THEN coalesce(review_since, CAST(unixepoch('subsec') * 1000000 AS INTEGER)) END,
                settled_at = CASE WHEN ? THEN coalesce(settled_at, CAST(unixepoch('subsec') * 1000000 AS INTEGER)) END,
                late_at = CASE WHEN ? THEN coalesce(late_at, CAST(unixepoch('subsec') * 1000000 AS INTEGER)) END, late_result = ?
         WHERE id = ? AND epoch = ?",
        held_values(held, epoch),
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Effects whose caller is taken for dead.
pub(crate) fn lapsed_effects<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    limit: i64,
) -> QueryResult<Vec<i64>> {
    Statement::<2, BigInt>::new(
        "SELECT id FROM inbox_effects
         WHERE consumer = ? AND state = 'attempted' AND lease_until <= CAST(unixepoch('subsec') * 1000000 AS INTEGER)
         ORDER BY lease_until, id LIMIT ?",
        [Bind::Text(consumer.0), Bind::BigInt(limit)],
    )
    .load(conn)
}

/// Effects that have been unknown for too long.
pub(crate) fn overdue_effects<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    time: i64,
    limit: i64,
) -> QueryResult<Vec<i64>> {
    Statement::<3, BigInt>::new(
        "SELECT id FROM inbox_effects
         WHERE consumer = ? AND state = 'unknown' AND review_since IS NULL
           AND unknown_since <= CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?
         ORDER BY id LIMIT ?",
        [Bind::Text(consumer.0), Bind::BigInt(time), Bind::BigInt(limit)],
    )
    .load(conn)
}

/// Effects about which the provider is to be asked now, of these names or of any.
pub(crate) fn due_effects<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    names: Option<&str>,
    limit: i64,
) -> QueryResult<Vec<i64>> {
    Statement::<4, BigInt>::new(
        "SELECT id FROM inbox_effects
         WHERE consumer = ? AND state = 'unknown' AND ask_at <= CAST(unixepoch('subsec') * 1000000 AS INTEGER)
           AND (? IS NULL OR effect IN (SELECT value FROM json_each(?)))
         ORDER BY ask_at, id LIMIT ?",
        [
            Bind::Text(consumer.0),
            Bind::MaybeText(names),
            Bind::MaybeText(names),
            Bind::BigInt(limit),
        ],
    )
    .load(conn)
}

/// Makes the messages of an operation due that wait for their time and are not being tried: what they wait for is
/// known.
pub(crate) fn wake_parked<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumers: &[String; 3],
    operation: &OperationKey,
) -> QueryResult<usize> {
    Statement::<5>::new(
        "UPDATE inbox_parked SET not_before = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
         WHERE consumer IN (?, ?, ?) AND scope = ? AND operation = ? AND state = 'retry' AND starts = 0
           AND not_before > CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
        [
            Bind::Text(&consumers[0]),
            Bind::Text(&consumers[1]),
            Bind::Text(&consumers[2]),
            Bind::Text(operation.scope()),
            Bind::Text(operation.id()),
        ],
    )
    .execute(conn)
}

/// How many effects are unknown, and how many of them wait for a person.
pub(crate) fn effect_figures<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
) -> QueryResult<(i64, i64)> {
    Statement::<1, (BigInt, BigInt)>::new(
        "SELECT count(*), count(review_since) FROM inbox_effects WHERE consumer = ? AND state = 'unknown'",
        [Bind::Text(consumer.0)],
    )
    .get_result(conn)
}

/// Deletes the oldest effects that are settled or were never performed, and whose operation is kept under none of these
/// names. What is under way or unknown stays, however old it is, and so does what was refused and reported done since.
/// What was settled or decided late is kept as long as if it had been made then: somebody may not have seen it yet.
pub(crate) fn delete_effects<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    names: &[String; 3],
    window: i64,
    rows: i64,
) -> QueryResult<i64> {
    Statement::<11>::new(
        "DELETE FROM inbox_effects WHERE id IN (
             SELECT id FROM inbox_effects AS e
             WHERE consumer = ? AND created_at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?
               AND coalesce(settled_at, created_at) < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?
               AND coalesce(decided_at, created_at) < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?
               AND (state IN ('done', 'intended') OR (state = 'failed' AND late_at IS NULL))
               AND NOT EXISTS (SELECT 1 FROM inbox_operations AS o
                               WHERE o.consumer IN (?, ?, ?) AND o.scope = e.scope AND o.operation = e.operation)
               AND NOT EXISTS (SELECT 1 FROM inbox_parked AS p
                               WHERE p.consumer IN (?, ?, ?) AND p.scope = e.scope AND p.operation = e.operation)
             ORDER BY created_at LIMIT ?)",
        [
            Bind::Text(consumer.0),
            Bind::BigInt(window),
            Bind::BigInt(window),
            Bind::BigInt(window),
            Bind::Text(&names[0]),
            Bind::Text(&names[1]),
            Bind::Text(&names[2]),
            Bind::Text(&names[0]),
            Bind::Text(&names[1]),
            Bind::Text(&names[2]),
            Bind::BigInt(rows),
        ],
    )
    .execute(conn)
    .map(|rows| i64::try_from(rows).unwrap_or(i64::MAX))
}

/// Moves the times that count into the past.
pub(crate) fn pass_effect_time<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    time: i64,
) -> QueryResult<()> {
    Statement::<8>::new(
        "UPDATE inbox_effects SET lease_until = lease_until - ?,
                ask_at = ask_at - ?,
                unknown_since = unknown_since - ?,
                created_at = created_at - ?,
                attempted_at = attempted_at - ?,
                settled_at = settled_at - ?,
                decided_at = decided_at - ?
         WHERE consumer = ?",
        [
            Bind::BigInt(time),
            Bind::BigInt(time),
            Bind::BigInt(time),
            Bind::BigInt(time),
            Bind::BigInt(time),
            Bind::BigInt(time),
            Bind::BigInt(time),
            Bind::Text(consumer.0),
        ],
    )
    .execute(conn)
    .map(drop)
}
