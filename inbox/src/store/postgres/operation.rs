use std::time::Duration;

use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
use diesel::{OptionalExtension, QueryResult, RunQueryDsl};
use message::OperationKey;

use crate::Consumer;
use crate::store::statement::{Bind, Statement};
use crate::store::{First, Operation, Row, fingerprint, time};

/// Writes the row unless it is there; true if it wrote it. Waits while another transaction has
/// written it and not ended yet.
pub(crate) fn claim<C: LoadConnection<Backend = Pg>>(
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
pub(crate) fn withdraw<C: LoadConnection<Backend = Pg>>(
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
pub(crate) fn store_result<C: LoadConnection<Backend = Pg>>(
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
pub(crate) fn count_repeat<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    row: &Row<'_>,
) -> QueryResult<Option<First>> {
    type Columns = (Bool, Nullable<Text>, Nullable<Text>, BigInt);
    let fingerprint = || Bind::Bytes(row.fingerprint.as_bytes());
    let first = Statement::<8, Columns>::new(
        "UPDATE inbox_operations SET
             duplicates = duplicates + CASE WHEN fingerprint = ? THEN 1 ELSE 0 END,
             last_duplicate_at = CASE WHEN fingerprint = ? THEN clock_timestamp() ELSE last_duplicate_at END,
             conflicts = conflicts + CASE WHEN fingerprint = ? THEN 0 ELSE 1 END,
             last_conflict_at = CASE WHEN fingerprint = ? THEN last_conflict_at ELSE clock_timestamp() END
         WHERE consumer = ? AND scope = ? AND operation = ?
         RETURNING fingerprint = ?, message_id, result, CAST(extract(epoch FROM applied_at) * 1000000 AS bigint)",
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

/// Runs `work` in a savepoint whose lock waits end after `wait`; `None` where one did. The caller's
/// own `lock_timeout` holds again afterwards.
pub(crate) fn waiting_at_most<C: LoadConnection<Backend = Pg>, T>(
    conn: &mut C,
    wait: Duration,
    work: impl FnOnce(&mut C) -> QueryResult<T>,
) -> QueryResult<Option<T>> {
    // Zero would mean no limit.
    let limit = format!("{}ms", wait.as_millis().clamp(1, i32::MAX as u128));
    let done = conn.transaction(|conn| {
        let before: String =
            Statement::<0, Text>::new("SELECT current_setting('lock_timeout')", [])
                .get_result(conn)?;
        set_lock_timeout(conn, &limit)?;
        let done = work(conn)?;
        // A released savepoint passes its SET LOCAL on to the transaction; a rolled back one does not.
        set_lock_timeout(conn, &before)?;
        Ok(done)
    });
    match done {
        Ok(done) => Ok(Some(done)),
        Err(Error::DatabaseError(_, info)) if info.message().contains("due to lock timeout") => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn set_lock_timeout<C: LoadConnection<Backend = Pg>>(conn: &mut C, value: &str) -> QueryResult<()> {
    Statement::<1, Text>::new("SELECT set_config('lock_timeout', ?, true)", [Bind::Text(value)])
        .get_result::<String>(conn)
        .map(drop)
}

/// What is stored of an operation.
pub(crate) fn operation<C: LoadConnection<Backend = Pg>>(
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
        "SELECT fingerprint, message_id, result,
                CAST(extract(epoch FROM applied_at) * 1000000 AS bigint),
                duplicates, CAST(extract(epoch FROM last_duplicate_at) * 1000000 AS bigint),
                conflicts, CAST(extract(epoch FROM last_conflict_at) * 1000000 AS bigint)
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
