use std::time::Duration;

use diesel::connection::LoadConnection;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel::{OptionalExtension, QueryResult, RunQueryDsl};
use message::OperationKey;

use crate::store::operation::{FirstValues, OperationValues};
use crate::store::statement::{Bind, Statement};
use crate::store::{First, Operation, Row};
use crate::{Consumer, OperationVerdict};

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

/// Keeps the handler's result for the duplicates, and when it was done.
pub(crate) fn store_result<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    row: &Row<'_>,
    json: &str,
    verdict: OperationVerdict,
) -> QueryResult<()> {
    Statement::<5>::new(
        "UPDATE inbox_operations SET result = nullif(?, 'null'), verdict = ?,
             finished_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
         WHERE consumer = ? AND scope = ? AND operation = ?",
        [
            Bind::Text(json),
            Bind::MaybeText(verdict.stored()),
            Bind::Text(row.consumer.0),
            Bind::Text(row.operation.scope()),
            Bind::Text(row.operation.id()),
        ],
    )
    .execute(conn)
    .map(drop)
}

/// Counts a duplicate or a conflict and reads what the first time left; `None` where the row is gone.
///
/// Two statements, because RETURNING sees nothing but the row here. No other writer can come between:
/// the claim before has the write lock.
pub(crate) fn count_repeat<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    row: &Row<'_>,
) -> QueryResult<Option<First>> {
    type Columns = (Text, Nullable<Text>, Nullable<Text>, Bool, BigInt);
    let first = Statement::<7, Columns>::new(
        "SELECT CASE WHEN o.fingerprint <> given.fingerprint THEN 'conflict'
                     WHEN given.replay THEN 'replay'
                     WHEN o.message_id = given.message_id AND given.redelivered THEN 'redelivery'
                     WHEN o.message_id = given.message_id THEN 'same_message'
                     ELSE 'other_message' END,
                o.message_id, o.result, o.result_dropped_at IS NOT NULL, o.applied_at
         FROM (SELECT ? AS fingerprint, ? AS message_id, ? AS redelivered, ? AS replay) AS given, inbox_operations o
         WHERE o.consumer = ? AND o.scope = ? AND o.operation = ?",
        [
            Bind::Bytes(row.fingerprint.as_bytes()),
            Bind::MaybeText(row.message_id),
            Bind::Bool(row.redelivered),
            Bind::Bool(row.replay),
            Bind::Text(row.consumer.0),
            Bind::Text(row.operation.scope()),
            Bind::Text(row.operation.id()),
        ],
    )
    .get_result::<FirstValues>(conn)
    .optional()?;
    let Some(first) = first else { return Ok(None) };
    Statement::<4>::new(
        "UPDATE inbox_operations SET
             replayed = CASE given.kind WHEN 'replay' THEN coalesce(replayed, 0) + 1 ELSE replayed END,
             redelivered = CASE given.kind WHEN 'redelivery' THEN coalesce(redelivered, 0) + 1 ELSE redelivered END,
             same_message = CASE given.kind WHEN 'same_message' THEN coalesce(same_message, 0) + 1 ELSE same_message END,
             other_message = CASE given.kind WHEN 'other_message' THEN coalesce(other_message, 0) + 1 ELSE other_message END,
             duplicates = duplicates + (given.kind <> 'conflict'),
             last_duplicate_at = CASE given.kind WHEN 'conflict' THEN last_duplicate_at
                                 ELSE CAST(unixepoch('subsec') * 1000000 AS INTEGER) END,
             conflicts = conflicts + (given.kind = 'conflict'),
             last_conflict_at = CASE given.kind WHEN 'conflict' THEN CAST(unixepoch('subsec') * 1000000 AS INTEGER)
                                ELSE last_conflict_at END
         FROM (SELECT ? AS kind) AS given WHERE consumer = ? AND scope = ? AND operation = ?",
        [
            Bind::Text(&first.0),
            Bind::Text(row.consumer.0),
            Bind::Text(row.operation.scope()),
            Bind::Text(row.operation.id()),
        ],
    )
    .execute(conn)?;
    First::read(first).map(Some)
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
    type Counts =
        (Nullable<BigInt>, Nullable<BigInt>, Nullable<BigInt>, Nullable<BigInt>, Nullable<BigInt>);
    type Columns = (
        (Binary, Nullable<Text>, Nullable<Text>, Nullable<Text>),
        (BigInt, Nullable<BigInt>, Nullable<BigInt>),
        (BigInt, Nullable<BigInt>, BigInt, Nullable<BigInt>),
        Counts,
    );
    let found: Option<OperationValues> = Statement::<3, Columns>::new(
        "SELECT fingerprint, message_id, result, verdict, applied_at, finished_at, result_dropped_at,
                duplicates, last_duplicate_at, conflicts, last_conflict_at,
                replayed, concurrent, redelivered, same_message, other_message
         FROM inbox_operations WHERE consumer = ? AND scope = ? AND operation = ?",
        [Bind::Text(consumer.0), Bind::Text(operation.scope()), Bind::Text(operation.id())],
    )
    .get_result(conn)
    .optional()?;
    found.map(Operation::read).transpose()
}
