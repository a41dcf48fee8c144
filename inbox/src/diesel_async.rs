//! `once` for diesel-async connections to PostgreSQL: the same statements, the same outcomes.

use diesel::pg::Pg;
use diesel::result::Error;
use diesel::{OptionalExtension, QueryResult};
use diesel_async::{AsyncConnection, RunQueryDsl, TransactionManager};
use message::{Fingerprint, OperationKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::once::{CLAIMS, Claim, Claimed};
use crate::outcome::{Answer, Outcome};
use crate::park::clean;
use crate::store::{First, FirstValues, Row, claims};
use crate::{Consumer, Once, OnceError, OperationVerdict};

/// Applies a business operation once in the open transaction; see [`crate::once`].
///
/// # Errors
/// The handler's own error, or [`OnceError`] in its form. Roll the transaction back.
pub async fn once<C, R, E>(
    tx: &mut C,
    consumer: Consumer<'_>,
    operation: &OperationKey,
    fingerprint: &Fingerprint,
    handler: impl AsyncFnOnce(&mut C) -> Result<R, E>,
) -> Result<Outcome<R>, E>
where
    C: AsyncConnection<Backend = Pg>,
    R: Serialize + DeserializeOwned,
    E: From<OnceError>,
{
    run(Once::new(consumer, operation, fingerprint), tx, handler).await
}

/// Applies an operation with options; see [`Once::run`]. Dropping the future leaves the claim in the
/// transaction, without a result: roll it back.
///
/// # Errors
/// The handler's own error, or [`OnceError`] in its form. Roll the transaction back.
pub async fn run<C, R, E>(
    once: Once<'_>,
    tx: &mut C,
    handler: impl AsyncFnOnce(&mut C) -> Result<R, E>,
) -> Result<Outcome<R>, E>
where
    C: AsyncConnection<Backend = Pg>,
    R: Serialize + DeserializeOwned,
    E: From<OnceError>,
{
    once.check()?;
    match C::TransactionManager::transaction_manager_status_mut(tx).transaction_depth() {
        Ok(Some(_)) => {}
        Ok(None) => return Err(OnceError::NoTransaction.into()),
        Err(error) => return Err(OnceError::from(error).into()),
    }
    let message_id = once.row.message_id.map(clean);
    let once = Once { row: Row { message_id: message_id.as_deref(), ..once.row }, wait: once.wait };
    let answer = match claim(&once, tx).await? {
        Claim::Ours => Answer::Applied(apply(&once.row, tx, handler).await?),
        Claim::Known(first) => Answer::to_repeat(first)?,
        Claim::Busy => Answer::InProgress,
    };
    Ok(answer.into())
}

async fn claim<C>(once: &Once<'_>, tx: &mut C) -> Result<Claim, OnceError>
where
    C: AsyncConnection<Backend = Pg>,
{
    for _ in 0..CLAIMS {
        let claimed = match once.wait {
            Some(limit) => waiting_at_most(tx, &claims::lock_limit(limit), &once.row).await?,
            None => Some(claim_or_count(tx, &once.row).await?),
        };
        match claimed {
            None => return Ok(Claim::Busy),
            Some(Claimed::Ours) => return Ok(Claim::Ours),
            Some(Claimed::Known(first)) => return Ok(Claim::Known(first)),
            Some(Claimed::Gone) => {}
        }
    }
    Err(OnceError::RowGone)
}

async fn claim_or_count<C>(tx: &mut C, row: &Row<'_>) -> QueryResult<Claimed>
where
    C: AsyncConnection<Backend = Pg>,
{
    if claims::claim(row).execute(tx).await? == 1 {
        return Ok(Claimed::Ours);
    }
    let first = claims::count_repeat(row).get_result::<FirstValues>(tx).await.optional()?;
    Ok(first.map(First::read).transpose()?.map_or(Claimed::Gone, Claimed::Known))
}

/// In a savepoint with a limit of its own; see the synchronous twin in the store.
async fn waiting_at_most<C>(tx: &mut C, limit: &str, row: &Row<'_>) -> QueryResult<Option<Claimed>>
where
    C: AsyncConnection<Backend = Pg>,
{
    C::TransactionManager::begin_transaction(tx).await?;
    let done = limited(tx, limit, row).await;
    match &done {
        Ok(_) => C::TransactionManager::commit_transaction(tx).await?,
        Err(_) => C::TransactionManager::rollback_transaction(tx).await?,
    }
    claims::unless_timed_out(done)
}

async fn limited<C>(tx: &mut C, limit: &str, row: &Row<'_>) -> Result<Claimed, Error>
where
    C: AsyncConnection<Backend = Pg>,
{
    let before: String = claims::lock_timeout().get_result(tx).await?;
    claims::set_lock_timeout(limit).execute(tx).await?;
    let done = claim_or_count(tx, row).await?;
    claims::set_lock_timeout(&before).execute(tx).await?;
    Ok(done)
}

async fn apply<C, R, E>(
    row: &Row<'_>,
    tx: &mut C,
    handler: impl AsyncFnOnce(&mut C) -> Result<R, E>,
) -> Result<R, E>
where
    C: AsyncConnection<Backend = Pg>,
    R: Serialize,
    E: From<OnceError>,
{
    let result = match handler(tx).await {
        Ok(result) => result,
        Err(error) => {
            let _ = claims::withdraw(row).execute(tx).await;
            return Err(error);
        }
    };
    let json = serde_json::to_string(&result).map_err(OnceError::UnwritableResult)?;
    // Also for a null: it finds out about an aborted transaction, of which this kind of connection shows nothing.
    let stored = claims::store_result(row, &json, OperationVerdict::Applied).execute(tx).await;
    stored.map_err(OnceError::from)?;
    Ok(result)
}
