use diesel::connection::{LoadConnection, TransactionManager};
use message::{Event, MessageId};

use crate::backend::OutboxBackend;
use crate::draft::Draft;
use crate::error::EnqueueError;
use crate::row::NewRow;

/// Enqueues an event in the open transaction. It is published if and only if that commits.
///
/// Routing, version and fingerprint come from the type; use [`Draft`] to say more.
///
/// # Errors
/// [`EnqueueError`]; roll the business transaction back.
pub fn enqueue<C, E>(tx: &mut C, event: &E) -> Result<MessageId, EnqueueError>
where
    C: LoadConnection,
    C::Backend: OutboxBackend,
    E: Event + ?Sized,
{
    Draft::of(event).enqueue(tx)
}

/// Enqueues many events in order, on PostgreSQL with one statement for all of them. Takes events'
/// [`Draft`]s; see there for options. All or nothing: an invalid one is found before any is written.
///
/// # Errors
/// [`EnqueueError`]; roll the business transaction back.
///
/// ```
/// # use std::borrow::Cow;
/// # use diesel::prelude::*;
/// # #[derive(serde::Serialize)] struct Shipped(u32);
/// # impl message::Event for Shipped {
/// #     const KIND: &'static str = "order.shipped";
/// #     fn operation(&self) -> Cow<'_, str> { self.0.to_string().into() }
/// # }
/// # let mut conn = SqliteConnection::establish(":memory:")?;
/// # migrations::run(&mut conn)?;
/// let shipped: Vec<Shipped> = (1..=3).map(Shipped).collect();
/// let ids = conn.transaction(|tx| outbox::enqueue_all(tx, shipped.iter().map(outbox::Draft::of)))?;
/// assert_eq!(ids.len(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn enqueue_all<C>(
    tx: &mut C,
    drafts: impl IntoIterator<Item = Draft>,
) -> Result<Vec<MessageId>, EnqueueError>
where
    C: LoadConnection,
    C::Backend: OutboxBackend,
{
    let (rows, mut keys) = prepared(drafts)?;
    require_transaction(tx)?;
    // Sorted and once each: two transactions that lock the same keys in another order deadlock.
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        C::Backend::serialize(tx, &key)?;
    }
    // With one row a duplicate id can be named; with many the database does not say which it was.
    let only = if let [row] = &rows[..] { Some(row.message.id) } else { None };
    if !rows.is_empty() {
        C::Backend::insert(tx, &rows).map_err(|error| EnqueueError::of_insert(error, only))?;
    }
    Ok(rows.iter().map(|row| row.message.id).collect())
}

/// The rows of the drafts, and the ordering keys that are to be serialized.
pub(crate) fn prepared(
    drafts: impl IntoIterator<Item = Draft>,
) -> Result<(Vec<NewRow>, Vec<String>), EnqueueError> {
    let mut rows = Vec::new();
    let mut keys = Vec::new();
    for draft in drafts {
        let (row, key) = draft.finish()?;
        rows.push(row);
        keys.extend(key);
    }
    Ok((rows, keys))
}

/// A BEGIN sent past diesel is not seen and refused too: nothing then ties it to this call.
fn require_transaction<C: LoadConnection>(tx: &mut C) -> Result<(), EnqueueError> {
    let status = C::TransactionManager::transaction_manager_status_mut(tx);
    match status.transaction_depth() {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(EnqueueError::NoTransaction),
        Err(error) => Err(EnqueueError::Database(error)),
    }
}
