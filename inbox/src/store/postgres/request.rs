use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel::{OptionalExtension, QueryResult, RunQueryDsl};
use message::{Fingerprint, OperationKey};

use crate::Consumer;
use crate::store::Row;
use crate::store::request::{Claim, Found, Known, Standing};
use crate::store::statement::{Bind, Statement};

/// Claims the key for this transaction unless it is taken, and never waits for another one's end: a
/// waiting request would keep a connection from the one it waits for.
///
/// Who inserts holds an advisory lock on the key until its transaction ends, so that others are told
/// apart from it without touching its row. `lock` may be shared by two keys; one is then told to be
/// in progress once too often.
pub(crate) fn claim_unheld<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    row: &Row<'_>,
    lock: i64,
    window: i64,
) -> QueryResult<Found> {
    let (free, written) = Statement::<5, (Bool, Bool)>::new(
        "WITH given AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(?) AS free),
         written AS (
             INSERT INTO inbox_operations (consumer, scope, operation, fingerprint)
             SELECT ?, ?, ?, ? FROM given WHERE free ON CONFLICT DO NOTHING RETURNING 1)
         SELECT free, EXISTS (SELECT 1 FROM written) FROM given",
        [
            Bind::BigInt(lock),
            Bind::Text(row.consumer.0),
            Bind::Text(row.operation.scope()),
            Bind::Text(row.operation.id()),
            Bind::Bytes(row.fingerprint.as_bytes()),
        ],
    )
    .get_result::<(bool, bool)>(conn)?;
    if written {
        return Ok(Found::Ours);
    }
    // A statement of its own: the one before may be older than the commit it ran into.
    let known = Statement::<5, (Bool, Nullable<Text>, Bool)>::new(
        "SELECT fingerprint = ?, result, applied_at < statement_timestamp() - ? * interval '1 microsecond'
         FROM inbox_operations WHERE consumer = ? AND scope = ? AND operation = ?",
        [
            Bind::Bytes(row.fingerprint.as_bytes()),
            Bind::BigInt(window),
            Bind::Text(row.consumer.0),
            Bind::Text(row.operation.scope()),
            Bind::Text(row.operation.id()),
        ],
    )
    .get_result::<(bool, Option<String>, bool)>(conn)
    .optional()?;
    Ok(match known {
        None if free => Found::Gone,
        None => Found::Held,
        // Whoever has the lock may be replacing it.
        Some((_, _, true)) if !free => Found::Held,
        Some((same, reply, expired)) => Found::Known(Known { same, reply, expired }),
    })
}

/// Deletes the key's row if it is older than its window.
pub(crate) fn delete_expired<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    operation: &OperationKey,
    window: i64,
) -> QueryResult<()> {
    Statement::<4>::new(
        "DELETE FROM inbox_operations WHERE consumer = ? AND scope = ? AND operation = ?
         AND applied_at < statement_timestamp() - ? * interval '1 microsecond'",
        [
            Bind::Text(consumer.0),
            Bind::Text(operation.scope()),
            Bind::Text(operation.id()),
            Bind::BigInt(window),
        ],
    )
    .execute(conn)
    .map(drop)
}

/// Claims the key for a run outside a transaction, where it is free, older than its window, or left
/// behind by an owner whose lease has ended; the run's epoch, `None` where it is taken. A completed
/// request within its window is never in progress again.
pub(crate) fn begin_request<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    claim: &Claim<'_>,
    fingerprint: &Fingerprint,
    lease: i64,
    window: i64,
) -> QueryResult<Option<i64>> {
    Statement::<8, BigInt>::new(
        "INSERT INTO inbox_requests AS r (consumer, scope, operation, fingerprint, owner, lease_until)
         VALUES (?, ?, ?, ?, ?, clock_timestamp() + ? * interval '1 microsecond')
         ON CONFLICT (consumer, scope, operation) DO UPDATE SET
             fingerprint = excluded.fingerprint, state = 'in_progress', owner = excluded.owner,
             epoch = CASE r.state WHEN 'completed' THEN 1 ELSE r.epoch + 1 END,
             lease_until = excluded.lease_until, reply = NULL, completed_at = NULL, begun_at = clock_timestamp()
         WHERE (r.state = 'completed' AND r.completed_at < clock_timestamp() - ? * interval '1 microsecond')
            OR (r.state = 'in_progress' AND r.lease_until < clock_timestamp()
                AND (r.fingerprint = excluded.fingerprint
                     OR r.lease_until < clock_timestamp() - ? * interval '1 microsecond'))
         RETURNING epoch",
        [
            Bind::Text(claim.consumer.0),
            Bind::Text(claim.operation.scope()),
            Bind::Text(claim.operation.id()),
            Bind::Bytes(fingerprint.as_bytes()),
            Bind::Text(claim.owner),
            Bind::BigInt(lease),
            Bind::BigInt(window),
            Bind::BigInt(window),
        ],
    )
    .get_result(conn)
    .optional()
}

/// What stands under the key.
pub(crate) fn request<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    operation: &OperationKey,
    fingerprint: &Fingerprint,
) -> QueryResult<Option<Standing>> {
    let found = Statement::<4, (Bool, Nullable<Text>)>::new(
        "SELECT fingerprint = ?, reply FROM inbox_requests
         WHERE consumer = ? AND scope = ? AND operation = ?",
        [
            Bind::Bytes(fingerprint.as_bytes()),
            Bind::Text(consumer.0),
            Bind::Text(operation.scope()),
            Bind::Text(operation.id()),
        ],
    )
    .get_result::<(bool, Option<String>)>(conn)
    .optional()?;
    Ok(found.map(|(same, reply)| Standing { same, reply }))
}

/// Prolongs the lease; false where it is somebody else's.
pub(crate) fn renew_request<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    claim: &Claim<'_>,
    lease: i64,
) -> QueryResult<bool> {
    Statement::<6>::new(
        "UPDATE inbox_requests SET lease_until = clock_timestamp() + ? * interval '1 microsecond'
         WHERE consumer = ? AND scope = ? AND operation = ? AND owner = ? AND epoch = ? AND state = 'in_progress'",
        [
            Bind::BigInt(lease),
            Bind::Text(claim.consumer.0),
            Bind::Text(claim.operation.scope()),
            Bind::Text(claim.operation.id()),
            Bind::Text(claim.owner),
            Bind::BigInt(claim.epoch),
        ],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Keeps the reply; false where somebody else has taken over.
pub(crate) fn complete_request<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    claim: &Claim<'_>,
    reply: &str,
) -> QueryResult<bool> {
    Statement::<6>::new(
        "UPDATE inbox_requests SET state = 'completed', reply = ?, lease_until = NULL, completed_at = clock_timestamp()
         WHERE consumer = ? AND scope = ? AND operation = ? AND owner = ? AND epoch = ? AND state = 'in_progress'",
        [
            Bind::Text(reply),
            Bind::Text(claim.consumer.0),
            Bind::Text(claim.operation.scope()),
            Bind::Text(claim.operation.id()),
            Bind::Text(claim.owner),
            Bind::BigInt(claim.epoch),
        ],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Frees the key; false where somebody else has taken over.
pub(crate) fn release_request<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    claim: &Claim<'_>,
) -> QueryResult<bool> {
    Statement::<5>::new(
        "DELETE FROM inbox_requests
         WHERE consumer = ? AND scope = ? AND operation = ? AND owner = ? AND epoch = ? AND state = 'in_progress'",
        [
            Bind::Text(claim.consumer.0),
            Bind::Text(claim.operation.scope()),
            Bind::Text(claim.operation.id()),
            Bind::Text(claim.owner),
            Bind::BigInt(claim.epoch),
        ],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Deletes the oldest completed requests. One that is in progress stays, however old it is.
pub(crate) fn delete_requests<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    window: i64,
    rows: i64,
) -> QueryResult<i64> {
    Statement::<3>::new(
        "DELETE FROM inbox_requests WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM inbox_requests
             WHERE consumer = ? AND state = 'completed'
               AND completed_at < statement_timestamp() - ? * interval '1 microsecond'
             ORDER BY completed_at LIMIT ? FOR UPDATE SKIP LOCKED))",
        [Bind::Text(consumer.0), Bind::BigInt(window), Bind::BigInt(rows)],
    )
    .execute(conn)
    .map(|rows| i64::try_from(rows).unwrap_or(i64::MAX))
}

/// Fails where the transaction is doomed by an error that its handler swallowed: COMMIT alone would
/// answer well and roll back.
pub(crate) fn still_good<C: LoadConnection<Backend = Pg>>(conn: &mut C) -> QueryResult<()> {
    Statement::<0>::new("SELECT 1", []).execute(conn).map(drop)
}
