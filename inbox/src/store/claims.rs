//! Statements for PostgreSQL that diesel and diesel-async both run.

use std::time::Duration;

use diesel::QueryResult;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use message::OperationKey;

use super::Row;
use super::statement::{Bind, Statement, sql};
use crate::OperationVerdict;

sql!(
    Claim = "INSERT INTO inbox_operations (consumer, scope, operation, fingerprint, message_id)
     VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
);

/// Writes the row unless it is there.
pub(crate) fn claim<'a>(row: &Row<'a>) -> Statement<'a, 5, (), Claim> {
    Statement::named([
        Bind::Text(row.consumer.0),
        Bind::Text(row.operation.scope()),
        Bind::Text(row.operation.id()),
        Bind::Bytes(row.fingerprint.as_bytes()),
        Bind::MaybeText(row.message_id),
    ])
}

/// Takes back a claim of this transaction.
pub(crate) fn withdraw<'a>(row: &Row<'a>) -> Statement<'a, 3> {
    let [consumer, scope, operation] = key(row.consumer.0, row.operation);
    Statement::new(
        "DELETE FROM inbox_operations WHERE consumer = ? AND scope = ? AND operation = ?",
        [consumer, scope, operation],
    )
}

sql!(StoreResult = "UPDATE inbox_operations SET result = nullif(?, 'null'), verdict = ?, finished_at = clock_timestamp()
     WHERE consumer = ? AND scope = ? AND operation = ?");

/// Keeps the result, and the moment: a transaction that began before it was concurrent.
pub(crate) fn store_result<'a>(
    row: &Row<'a>,
    json: &'a str,
    verdict: OperationVerdict,
) -> Statement<'a, 5, (), StoreResult> {
    let [consumer, scope, operation] = key(row.consumer.0, row.operation);
    let verdict = Bind::MaybeText(verdict.stored());
    Statement::named([Bind::Text(json), verdict, consumer, scope, operation])
}

/// How the operation came again. It names columns that the statement does not change, so that it is
/// the same wherever it stands.
macro_rules! kind {
    () => {
        "CASE WHEN o.fingerprint <> given.fingerprint THEN 'conflict'
              WHEN given.replay THEN 'replay'
              WHEN coalesce(o.finished_at, o.applied_at) > transaction_timestamp() THEN 'concurrent'
              WHEN o.message_id = given.message_id AND given.redelivered THEN 'redelivery'
              WHEN o.message_id = given.message_id THEN 'same_message'
              ELSE 'other_message' END"
    };
}

/// One column's count, where the kind is its.
macro_rules! counted {
    ($column:literal, $kind:literal) => {
        concat!(
            $column,
            " = CASE ",
            kind!(),
            " WHEN '",
            $kind,
            "' THEN coalesce(o.",
            $column,
            ", 0) + 1 ELSE o.",
            $column,
            " END, "
        )
    };
}

/// What a repeat returns: kind or `conflict`, message id, result, whether it was dropped, when the
/// operation was claimed.
pub(crate) type FirstColumns = (Text, Nullable<Text>, Nullable<Text>, Bool, BigInt);

sql!(CountRepeat = concat!(
        "UPDATE inbox_operations o SET ",
        counted!("replayed", "replay"),
        counted!("concurrent", "concurrent"),
        counted!("redelivered", "redelivery"),
        counted!("same_message", "same_message"),
        counted!("other_message", "other_message"),
        "duplicates = o.duplicates + CASE WHEN o.fingerprint = given.fingerprint THEN 1 ELSE 0 END,
         last_duplicate_at = CASE WHEN o.fingerprint = given.fingerprint THEN clock_timestamp() ELSE o.last_duplicate_at END,
         conflicts = o.conflicts + CASE WHEN o.fingerprint = given.fingerprint THEN 0 ELSE 1 END,
         last_conflict_at = CASE WHEN o.fingerprint = given.fingerprint THEN o.last_conflict_at ELSE clock_timestamp() END
         FROM (SELECT CAST(? AS bytea) AS fingerprint, CAST(? AS text) AS message_id,
                      CAST(? AS boolean) AS redelivered, CAST(? AS boolean) AS replay) AS given
         WHERE o.consumer = ? AND o.scope = ? AND o.operation = ?
         RETURNING ",
        kind!(),
        ", o.message_id, o.result, o.result_dropped_at IS NOT NULL,
         CAST(extract(epoch FROM o.applied_at) * 1000000 AS bigint)"
    ));

/// Counts a duplicate or a conflict and reads what the first time left.
pub(crate) fn count_repeat<'a>(row: &Row<'a>) -> Statement<'a, 7, FirstColumns, CountRepeat> {
    let [consumer, scope, operation] = key(row.consumer.0, row.operation);
    Statement::named([
        Bind::Bytes(row.fingerprint.as_bytes()),
        Bind::MaybeText(row.message_id),
        Bind::Bool(row.redelivered),
        Bind::Bool(row.replay),
        consumer,
        scope,
        operation,
    ])
}

/// The session's limit for lock waits.
pub(crate) fn lock_timeout() -> Statement<'static, 0, Text> {
    Statement::new("SELECT current_setting('lock_timeout')", [])
}

/// Sets that limit for the transaction.
pub(crate) fn set_lock_timeout(value: &str) -> Statement<'_, 1, Text> {
    Statement::new("SELECT set_config('lock_timeout', ?, true)", [Bind::Text(value)])
}

/// How PostgreSQL is told of a limit for lock waits.
pub(crate) fn lock_limit(wait: Duration) -> String {
    // Zero would mean no limit.
    format!("{}ms", wait.as_millis().clamp(1, i32::MAX as u128))
}

/// `None` where a lock wait ended at its limit.
pub(crate) fn unless_timed_out<T>(done: QueryResult<T>) -> QueryResult<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(Error::DatabaseError(_, info)) if info.message().contains("due to lock timeout") => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn key<'a>(consumer: &'a str, operation: &'a OperationKey) -> [Bind<'a>; 3] {
    [Bind::Text(consumer), Bind::Text(operation.scope()), Bind::Text(operation.id())]
}
