use diesel::connection::LoadConnection;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel::{OptionalExtension, QueryResult, RunQueryDsl};
use message::{Fingerprint, OperationKey};

use crate::Consumer;
use crate::store::request::{Claim, Found, Known, Standing};
use crate::store::statement::{Bind, Statement};
use crate::store::{Row, request};

/// What is stored under the key. There is nobody to wait for: who may write on SQLite is the only one who may,
/// so there is no lock.
pub(crate) fn look_unheld<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    row: &Row<'_>,
    _lock: i64,
    window: i64,
) -> QueryResult<Found> {
    look_at(conn, row, window).map(|known| known.map_or(Found::Free, Found::Known))
}

/// The same without the right to go on.
pub(crate) fn look_at<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    row: &Row<'_>,
    window: i64,
) -> QueryResult<Option<Known>> {
    let known = Statement::<5, (Bool, Nullable<Text>, Bool)>::new(
        "SELECT fingerprint = ?, result, applied_at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?
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
    Ok(known.map(|(same, reply, expired)| Known { same, reply, expired }))
}

/// Writes what a request has done, with its reply; false where another transaction was quicker, and then this
/// one is doomed.
pub(crate) fn insert_applied<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    row: &Row<'_>,
    reply: &str,
) -> QueryResult<bool> {
    // The row would be committed by itself.
    still_good(conn)?;
    request::unless_taken(request::insert_applied(row, reply).execute(conn))
}

/// Deletes the key's row if it is older than its window.
pub(crate) fn delete_expired<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    operation: &OperationKey,
    window: i64,
) -> QueryResult<()> {
    Statement::<4>::new(
        "DELETE FROM inbox_operations WHERE consumer = ? AND scope = ? AND operation = ?
         AND applied_at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?",
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
/// request within its window is never in progress again. Once more is no difference: the answer to the first time
/// may have been lost.
pub(crate) fn begin_request<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    claim: &Claim<'_>,
    fingerprint: &Fingerprint,
    lease: i64,
    window: i64,
) -> QueryResult<Option<i64>> {
    Statement::<8, BigInt>::new(
        "INSERT INTO inbox_requests AS r (consumer, scope, operation, fingerprint, owner, lease_until)
         VALUES (?, ?, ?, ?, ?, CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?)
         ON CONFLICT (consumer, scope, operation) DO UPDATE SET
             fingerprint = excluded.fingerprint, state = 'in_progress', owner = excluded.owner,
             epoch = CASE WHEN r.state = 'completed' THEN 1 WHEN r.owner = excluded.owner THEN r.epoch ELSE r.epoch + 1 END,
             lease_until = excluded.lease_until, reply = NULL, completed_at = NULL, begun_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
         WHERE (r.state = 'completed' AND r.completed_at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?)
            OR (r.state = 'in_progress' AND r.owner = excluded.owner)
            OR (r.state = 'in_progress' AND r.lease_until < CAST(unixepoch('subsec') * 1000000 AS INTEGER)
                AND (r.fingerprint = excluded.fingerprint
                     OR r.lease_until < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?))
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
pub(crate) fn request<C: LoadConnection<Backend = Sqlite>>(
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
pub(crate) fn renew_request<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    claim: &Claim<'_>,
    lease: i64,
) -> QueryResult<bool> {
    Statement::<5>::new(
        "UPDATE inbox_requests SET lease_until = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?
         WHERE consumer = ? AND scope = ? AND operation = ? AND owner = ? AND state = 'in_progress'",
        [
            Bind::BigInt(lease),
            Bind::Text(claim.consumer.0),
            Bind::Text(claim.operation.scope()),
            Bind::Text(claim.operation.id()),
            Bind::Text(claim.owner),
        ],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Keeps the reply; false where somebody else has taken over. Once more is no difference: the answer to the first
/// time may have been lost.
pub(crate) fn complete_request<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    claim: &Claim<'_>,
    reply: &str,
) -> QueryResult<bool> {
    Statement::<5>::new(
        "UPDATE inbox_requests SET state = 'completed', reply = ?, lease_until = NULL, completed_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
         WHERE consumer = ? AND scope = ? AND operation = ? AND owner = ?",
        [
            Bind::Text(reply),
            Bind::Text(claim.consumer.0),
            Bind::Text(claim.operation.scope()),
            Bind::Text(claim.operation.id()),
            Bind::Text(claim.owner),
        ],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Frees the key; false where somebody else has taken over.
pub(crate) fn release_request<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    claim: &Claim<'_>,
) -> QueryResult<bool> {
    Statement::<4>::new(
        "DELETE FROM inbox_requests
         WHERE consumer = ? AND scope = ? AND operation = ? AND owner = ? AND state = 'in_progress'",
        [
            Bind::Text(claim.consumer.0),
            Bind::Text(claim.operation.scope()),
            Bind::Text(claim.operation.id()),
            Bind::Text(claim.owner),
        ],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Deletes the oldest completed requests. One that is in progress stays, however old it is.
pub(crate) fn delete_requests<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    window: i64,
    rows: i64,
) -> QueryResult<i64> {
    Statement::<3>::new(
        "DELETE FROM inbox_requests WHERE (consumer, scope, operation) IN (
             SELECT consumer, scope, operation FROM inbox_requests
             WHERE consumer = ? AND state = 'completed'
               AND completed_at < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - ?
             ORDER BY completed_at LIMIT ?)",
        [Bind::Text(consumer.0), Bind::BigInt(window), Bind::BigInt(rows)],
    )
    .execute(conn)
    .map(|rows| i64::try_from(rows).unwrap_or(i64::MAX))
}

/// Fails where the transaction is no more. Most errors that a handler can swallow leave it as it is; a full disk,
/// `RAISE(ROLLBACK)` and `ON CONFLICT ROLLBACK` end it, and every statement after that commits by itself.
pub(crate) fn still_good<C: LoadConnection<Backend = Sqlite>>(conn: &mut C) -> QueryResult<()> {
    // Nothing but BEGIN tells: in a transaction it is refused, and changes nothing.
    if Statement::<0>::new("BEGIN", []).execute(conn).is_err() {
        return Ok(());
    }
    // Left open for diesel, whose own ROLLBACK would fail otherwise and its error stand for this one.
    Err(Error::NotInTransaction)
}
