use std::collections::BTreeSet;

use diesel::connection::LoadConnection;

use super::selection::json_of;
use super::{AdminBackend, AdminError, Order, Selection};
use crate::backend::InboxBackend;
use crate::builder::InboxConnection;
use crate::{Consumer, ParkedState};

/// What an order changed, or would change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Messages changed.
    pub changed: u64,
    /// Messages that fit the selection and were left alone because they wait behind an earlier one of
    /// their ordering key. They follow by themselves.
    pub behind: u64,
}

/// A message that is about to be changed, locked.
#[derive(Debug)]
pub struct Picked {
    pub(crate) id: i64,
    pub(crate) consumer: String,
    pub(crate) state: ParkedState,
    pub(crate) ordering_key: Option<String>,
}

#[derive(Clone, Copy)]
enum Decision {
    Retry,
    Discard,
}

impl Decision {
    /// As recorded.
    const fn action(self) -> &'static str {
        match self {
            Self::Retry => "parked.retry",
            Self::Discard => "parked.discard",
        }
    }
}

/// Makes a message due now, whether it waits for its time or for a person. What it was parked for and its
/// attempts stay as they are; it gets one run at least, also with all of its attempts spent. A message
/// that is retried while an earlier one of its ordering key waits for a person is applied before that one.
///
/// # Errors
/// [`AdminError`]. One that waits behind another is refused, with the number of the first of its key.
pub fn retry<C: InboxConnection>(conn: &mut C, id: i64, order: &Order) -> Result<(), AdminError> {
    order.check()?;
    conn.write(|tx| {
        let picked = one(tx, id)?;
        if let (ParkedState::Behind, Some(key)) = (picked.state, &picked.ordering_key)
            && let Some(head) = C::Backend::head_before(tx, &picked.consumer, key, id)?
        {
            return Err(AdminError::Behind { id, head, key: key.clone() });
        }
        carry_out(tx, Decision::Retry, &[picked], order)
    })
}

/// The same for all that fit, at most [`Selection::limit`], in one transaction. Those that wait behind
/// another are left alone.
///
/// # Errors
/// [`AdminError`].
pub fn retry_all<C: InboxConnection>(
    conn: &mut C,
    which: &Selection,
    order: &Order,
) -> Result<Changed, AdminError> {
    order.check()?;
    conn.write(|tx| {
        let picked = C::Backend::pick(tx, which)?;
        let (behind, free): (Vec<_>, Vec<_>) =
            picked.into_iter().partition(|picked| picked.state == ParkedState::Behind);
        carry_out(tx, Decision::Retry, &free, order)?;
        Ok(Changed { changed: free.len() as u64, behind: behind.len() as u64 })
    })
}

/// Gives a message up: it is never applied, and the next one of its ordering key goes on. Its content is gone
/// with it; what the audit keeps is its digest.
///
/// # Errors
/// [`AdminError`].
pub fn discard<C: InboxConnection>(conn: &mut C, id: i64, order: &Order) -> Result<(), AdminError> {
    order.check()?;
    conn.write(|tx| {
        let picked = one(tx, id)?;
        carry_out(tx, Decision::Discard, &[picked], order)
    })
}

/// The same for all that fit, at most [`Selection::limit`], in one transaction.
///
/// # Errors
/// [`AdminError`].
pub fn discard_all<C: InboxConnection>(
    conn: &mut C,
    which: &Selection,
    order: &Order,
) -> Result<Changed, AdminError> {
    order.check()?;
    conn.write(|tx| {
        let picked = C::Backend::pick(tx, which)?;
        carry_out(tx, Decision::Discard, &picked, order)?;
        Ok(Changed { changed: picked.len() as u64, behind: 0 })
    })
}

fn one<C>(tx: &mut C, id: i64) -> Result<Picked, AdminError>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::pick(tx, &Selection::one(id))?.pop().ok_or(AdminError::UnknownMessage { id })
}

fn carry_out<C>(
    tx: &mut C,
    decision: Decision,
    picked: &[Picked],
    order: &Order,
) -> Result<(), AdminError>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    if picked.is_empty() || order.dry_run {
        return Ok(());
    }
    let ids: Vec<i64> = picked.iter().map(|picked| picked.id).collect();
    let ids = json_of(&ids);
    // First: it records what the change takes away.
    C::Backend::record(tx, &ids, decision.action(), &order.actor, &order.reason)?;
    match decision {
        Decision::Retry => C::Backend::make_due(tx, &ids)?,
        Decision::Discard => {
            C::Backend::remove(tx, &ids)?;
            let keys: BTreeSet<_> = picked
                .iter()
                .filter_map(|picked| Some((&picked.consumer, picked.ordering_key.as_ref()?)))
                .collect();
            for (consumer, key) in keys {
                // As for a consumer that skips nothing. One that does finds the rest at its next sweep, by
                // its own setting, which stands nowhere in the database.
                C::Backend::promote(tx, Consumer(consumer), key, false)?;
            }
        }
    }
    Ok(())
}
