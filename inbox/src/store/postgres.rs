use std::time::Duration;

use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Binary, Bool, Integer, Nullable, Text};
use diesel::{OptionalExtension, QueryResult, RunQueryDsl};
use message::OperationKey;

use super::statement::{Bind, Statement};
use super::{First, Operation, Parked, Row};
use crate::Consumer;
use crate::park::NewParked;

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
        applied_at: super::time(at),
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
        fingerprint: super::fingerprint(found.0)?,
        message_id: found.1,
        result: found.2,
        applied_at: super::time(found.3),
        duplicates: found.4,
        last_duplicate_at: found.5.map(super::time),
        conflicts: found.6,
        last_conflict_at: found.7.map(super::time),
    }))
}

/// Parks a delivery, or counts it where the same one is parked already; returns the row's number.
pub(crate) fn park<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    parked: &NewParked<'_>,
) -> QueryResult<i64> {
    Statement::<14, BigInt>::new(
        "INSERT INTO inbox_parked (consumer, reason, detail, attempts, digest, message_id, kind, scope, operation,
                                   exchange, routing_key, headers, content_type, payload)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS jsonb), ?, ?)
         ON CONFLICT (consumer, digest) DO UPDATE SET
             deliveries = inbox_parked.deliveries + 1,
             last_parked_at = clock_timestamp(),
             reason = excluded.reason,
             detail = excluded.detail,
             attempts = excluded.attempts,
             scope = excluded.scope,
             operation = excluded.operation
         RETURNING id",
        [
            Bind::Text(parked.consumer.0),
            Bind::Text(parked.reason.as_str()),
            Bind::Text(&parked.detail),
            Bind::Integer(parked.attempts),
            Bind::Bytes(parked.digest.as_bytes()),
            Bind::MaybeText(parked.message_id.as_deref()),
            Bind::MaybeText(parked.kind.as_deref()),
            Bind::MaybeText(parked.operation.map(OperationKey::scope)),
            Bind::MaybeText(parked.operation.map(OperationKey::id)),
            Bind::Text(&parked.exchange),
            Bind::Text(&parked.routing_key),
            Bind::Text(&parked.headers),
            Bind::MaybeText(parked.content_type.as_deref()),
            Bind::Bytes(parked.payload),
        ],
    )
    .get_result(conn)
}

/// Parked deliveries with a greater number than `after`, in order of their numbers.
pub(crate) fn parked<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    after: i64,
    limit: i64,
) -> QueryResult<Vec<Parked>> {
    type Columns = (
        (BigInt, Text, Text, Integer, BigInt),
        (Nullable<Text>, Nullable<Text>, Nullable<Text>, Nullable<Text>),
        (Text, Text, Text, Nullable<Text>, Binary),
        (BigInt, BigInt),
    );
    type Values = (
        (i64, String, String, i32, i64),
        (Option<String>, Option<String>, Option<String>, Option<String>),
        (String, String, String, Option<String>, Vec<u8>),
        (i64, i64),
    );
    let rows: Vec<Values> = Statement::<3, Columns>::new(
        "SELECT id, reason, detail, attempts, deliveries, message_id, kind, scope, operation,
                exchange, routing_key, CAST(headers AS text), content_type, payload,
                CAST(extract(epoch FROM parked_at) * 1000000 AS bigint),
                CAST(extract(epoch FROM last_parked_at) * 1000000 AS bigint)
         FROM inbox_parked WHERE consumer = ? AND id > ? ORDER BY id LIMIT ?",
        [Bind::Text(consumer.0), Bind::BigInt(after), Bind::BigInt(limit)],
    )
    .load(conn)?;
    rows.into_iter()
        .map(|(about, names, message, times)| super::parked_row(about, names, message, times))
        .collect()
}
