use std::time::Duration;

use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel::{OptionalExtension, QueryResult, RunQueryDsl};
use message::OperationKey;

use crate::store::operation::{FirstValues, OperationValues};
use crate::store::statement::{Bind, Statement};
use crate::store::{First, Operation, Row, claims};
use crate::{Consumer, OperationVerdict};

/// Writes the row unless it is there; true if it wrote it. Waits while another transaction has
/// written it and not ended yet.
pub(crate) fn claim<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    row: &Row<'_>,
) -> QueryResult<bool> {
    claims::claim(row).execute(conn).map(|rows| rows == 1)
}

/// Takes back a claim of this transaction.
pub(crate) fn withdraw<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    row: &Row<'_>,
) -> QueryResult<()> {
    claims::withdraw(row).execute(conn).map(drop)
}

/// Keeps the handler's result for the duplicates, and when it was done.
pub(crate) fn store_result<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    row: &Row<'_>,
    json: &str,
    verdict: OperationVerdict,
) -> QueryResult<()> {
    claims::store_result(row, json, verdict).execute(conn).map(drop)
}

/// Counts a duplicate or a conflict and reads what the first time left; `None` where the row is gone.
pub(crate) fn count_repeat<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    row: &Row<'_>,
) -> QueryResult<Option<First>> {
    let first = claims::count_repeat(row).get_result::<FirstValues>(conn).optional()?;
    first.map(First::read).transpose()
}

/// Runs `work` in a savepoint whose lock waits end after `wait`; `None` where one did. The caller's
/// own `lock_timeout` holds again afterwards.
pub(crate) fn waiting_at_most<C: LoadConnection<Backend = Pg>, T>(
    conn: &mut C,
    wait: Duration,
    work: impl FnOnce(&mut C) -> QueryResult<T>,
) -> QueryResult<Option<T>> {
    let limit = claims::lock_limit(wait);
    let done = conn.transaction(|conn| {
        let before: String = claims::lock_timeout().get_result(conn)?;
        claims::set_lock_timeout(&limit).execute(conn)?;
        let done = work(conn)?;
        // A released savepoint passes its SET LOCAL on to the transaction; a rolled back one does not.
        claims::set_lock_timeout(&before).execute(conn)?;
        Ok::<_, Error>(done)
    });
    claims::unless_timed_out(done)
}

/// What is stored of an operation.
pub(crate) fn operation<C: LoadConnection<Backend = Pg>>(
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
        "SELECT fingerprint, message_id, result, verdict,
                CAST(extract(epoch FROM applied_at) * 1000000 AS bigint),
                CAST(extract(epoch FROM finished_at) * 1000000 AS bigint),
                CAST(extract(epoch FROM result_dropped_at) * 1000000 AS bigint),
                duplicates, CAST(extract(epoch FROM last_duplicate_at) * 1000000 AS bigint),
                conflicts, CAST(extract(epoch FROM last_conflict_at) * 1000000 AS bigint),
                replayed, concurrent, redelivered, same_message, other_message
         FROM inbox_operations WHERE consumer = ? AND scope = ? AND operation = ?",
        [Bind::Text(consumer.0), Bind::Text(operation.scope()), Bind::Text(operation.id())],
    )
    .get_result(conn)
    .optional()?;
    found.map(Operation::read).transpose()
}
