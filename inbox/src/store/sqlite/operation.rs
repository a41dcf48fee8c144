use std::time::Duration;

use diesel::connection::LoadConnection;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel::{OptionalExtension, QueryResult, RunQueryDsl};
use message::OperationKey;

use crate::Consumer;
use crate::store::statement::{Bind, Statement};
use crate::store::{First, Operation, Row, fingerprint, time};

/// Writes the row unless it is there; true if it wrote it. Another transaction that has written it
/// and not ended yet is waited for before, when this one takes the write lock.
pub(crate) fn claim<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    row: &Row<'_>,
) -> QueryResult<bool> {
    Statement::<5>::new(
        "INSERT INTO inbox_operations (consumer, scope, operation, fingerprint, message_id)
         VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            Bind::Text(row.consumer.0),
            Bind::Text(row.operation.scope()),
            Bind::Text(row.operation.id()),
            Bind::Bytes(row.fingerprint.as_bytes()),
            Bind::MaybeText(row.message_id),
        ],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Takes back a claim of this transaction.
pub(crate) fn withdraw<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    row: &Row<'_>,
) -> QueryResult<()> {
    Statement::<3>::new(
        "DELETE FROM inbox_operations WHERE consumer = ? AND scope = ? AND operation = ?",
        [
            Bind::Text(row.consumer.0),
            Bind::Text(row.operation.scope()),
            Bind::Text(row.operation.id()),
        ],
    )
    .execute(conn)
    .map(drop)
}

/// Keeps the handler's result for the duplicates.
pub(crate) fn store_result<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    row: &Row<'_>,
    json: &str,
) -> QueryResult<()> {
    Statement::<4>::new(
        "UPDATE inbox_operations SET result = nullif(?, 'null') WHERE consumer = ? AND scope = ? AND operation = ?",
        [
            Bind::Text(json),
            Bind::Text(row.consumer.0),
            Bind::Text(row.operation.scope()),
            Bind::Text(row.operation.id()),
        ],
    )
    .execute(conn)
    .map(drop)
}

/// Counts a duplicate or a conflict and reads what the first time left; `None` where the row is gone.
pub(crate) fn count_repeat<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    row: &Row<'_>,
) -> QueryResult<Option<First>> {
    type Columns = (Bool, Nullable<Text>, Nullable<Text>, BigInt);
    let fingerprint = || Bind::Bytes(row.fingerprint.as_bytes());
    let first = Statement::<8, Columns>::new(
        "UPDATE inbox_operations SET
             duplicates = duplicates + CASE WHEN fingerprint = ? THEN 1 ELSE 0 END,
             last_duplicate_at = CASE WHEN fingerprint = ? THEN CAST(unixepoch('subsec') * 1000000 AS INTEGER) ELSE last_duplicate_at END,
             conflicts = conflicts + CASE WHEN fingerprint = ? THEN 0 ELSE 1 END,
             last_conflict_at = CASE WHEN fingerprint = ? THEN last_conflict_at ELSE CAST(unixepoch('subsec') * 1000000 AS INTEGER) END
         WHERE consumer = ? AND scope = ? AND operation = ?
         RETURNING fingerprint = ?, message_id, result, applied_at",
        [
            fingerprint(),
            fingerprint(),
            fingerprint(),
            fingerprint(),
            Bind::Text(row.consumer.0),
            Bind::Text(row.operation.scope()),
            Bind::Text(row.operation.id()),
            fingerprint(),
        ],
    )
    .get_result::<(bool, Option<String>, Option<String>, i64)>(conn)
    .optional()?;
    Ok(first.map(|(same, message_id, result, at)| First {
        same,
        message_id,
        result,
        applied_at: time(at),
    }))
}

/// Runs `work`. There is nothing to wait for: who may write on SQLite is the only one who may.
pub(crate) fn waiting_at_most<C: LoadConnection<Backend = Sqlite>, T>(
    conn: &mut C,
    _wait: Duration,
    work: impl FnOnce(&mut C) -> QueryResult<T>,
) -> QueryResult<Option<T>> {
    work(conn).map(Some)
}

/// What is stored of an operation.
pub(crate) fn operation<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    operation: &OperationKey,
) -> QueryResult<Option<Operation>> {
    type Columns = (
        Binary,
        Nullable<Text>,
        Nullable<Text>,
        BigInt,
        BigInt,
        Nullable<BigInt>,
        BigInt,
        Nullable<BigInt>,
    );
    type Values =
        (Vec<u8>, Option<String>, Option<String>, i64, i64, Option<i64>, i64, Option<i64>);
    let found: Option<Values> = Statement::<3, Columns>::new(
        "SELECT fingerprint, message_id, result, applied_at,
                duplicates, last_duplicate_at, conflicts, last_conflict_at
         FROM inbox_operations WHERE consumer = ? AND scope = ? AND operation = ?",
        [Bind::Text(consumer.0), Bind::Text(operation.scope()), Bind::Text(operation.id())],
    )
    .get_result(conn)
    .optional()?;
    let Some(found) = found else { return Ok(None) };
    Ok(Some(Operation {
        fingerprint: fingerprint(found.0)?,
        message_id: found.1,
        result: found.2,
        applied_at: time(found.3),
        duplicates: found.4,
        last_duplicate_at: found.5.map(time),
        conflicts: found.6,
        last_conflict_at: found.7.map(time),
    }))
}
