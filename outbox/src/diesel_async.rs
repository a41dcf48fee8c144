//! `enqueue` and `enqueue_all` for diesel-async connections to PostgreSQL: the same statement, the
//! same checks.

use diesel::pg::Pg;
use diesel_async::{AsyncConnection, RunQueryDsl, TransactionManager};
use message::{Event, MessageId};

use crate::draft::Draft;
use crate::enqueue::prepared;
use crate::error::EnqueueError;

/// Enqueues an event in the open transaction; see [`crate::enqueue`].
///
/// # Errors
/// [`EnqueueError`]; roll the business transaction back.
pub async fn enqueue<C, E>(tx: &mut C, event: &E) -> Result<MessageId, EnqueueError>
where
    C: AsyncConnection<Backend = Pg>,
    E: Event + ?Sized,
{
    let draft = Draft::of(event);
    let ids = enqueue_all(tx, [draft]).await?;
    Ok(ids.into_iter().next().unwrap_or_default())
}

/// Enqueues many events in order with one statement; see [`crate::enqueue_all`].
///
/// # Errors
/// [`EnqueueError`]; roll the business transaction back.
pub async fn enqueue_all<C>(
    tx: &mut C,
    drafts: impl IntoIterator<Item = Draft>,
) -> Result<Vec<MessageId>, EnqueueError>
where
    C: AsyncConnection<Backend = Pg>,
{
    let (rows, mut keys) = prepared(drafts)?;
    match C::TransactionManager::transaction_manager_status_mut(tx).transaction_depth() {
        Ok(Some(_)) => {}
        Ok(None) => return Err(EnqueueError::NoTransaction),
        Err(error) => return Err(EnqueueError::Database(error)),
    }
    keys.sort_unstable();
    keys.dedup();
    for key in &keys {
        crate::store::unnest::lock(key).execute(tx).await?;
    }
    let ids: Vec<MessageId> = rows.iter().map(|row| row.message.id).collect();
    let only = if let [id] = ids[..] { Some(id) } else { None };
    if !rows.is_empty() {
        let insert = crate::store::unnest::many(&rows).execute(tx);
        insert.await.map_err(|error| EnqueueError::of_insert(error, only))?;
    }
    Ok(ids)
}
