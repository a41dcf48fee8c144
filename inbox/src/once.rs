use std::time::Duration;

use diesel::QueryResult;
use diesel::connection::{LoadConnection, TransactionManager};
use message::{Fingerprint, OperationKey, check_name};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{InboxBackend, WaitingBackend};
use crate::outcome::{Answer, Outcome};
use crate::park::clean;
use crate::store::{First, Row};
use crate::{Consumer, OnceError, OperationVerdict};

/// Deletions racing with a claim that are outrun before giving up.
pub(crate) const CLAIMS: u32 = 3;

/// Applies a business operation once: the short form of [`Once`].
///
/// Runs `handler` if this consumer has not applied the operation yet, and keeps its result; else
/// returns the first result. Claim, handler and result become permanent together with the open
/// transaction.
///
/// # Errors
/// The handler's own error, or [`OnceError`] in its form. Roll the transaction back; closures of
/// `conn.transaction(..)` do so by returning the error.
pub fn once<C, R, E>(
    tx: &mut C,
    consumer: Consumer<'_>,
    operation: &OperationKey,
    fingerprint: &Fingerprint,
    handler: impl FnOnce(&mut C) -> Result<R, E>,
) -> Result<Outcome<R>, E>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
    R: Serialize + DeserializeOwned,
    E: From<OnceError>,
{
    Once::new(consumer, operation, fingerprint).run(tx, handler)
}

/// One application of a business operation, with options.
///
/// The claim is an `INSERT … ON CONFLICT DO NOTHING` *before* the handler: a concurrent duplicate
/// waits on the unique index until the first one's transaction ends, and then either reads its result
/// or, after a rollback, runs the handler itself. Two handlers never run side by side.
///
/// Use READ COMMITTED. Under REPEATABLE READ and SERIALIZABLE a concurrent duplicate gets a
/// serialization failure (40001) instead of the result; the transaction must then be run again,
/// whole. On SQLite use `immediate_transaction`: a deferred one that reads and then writes can fail
/// with "database is locked" at once.
#[derive(Clone, Debug)]
#[must_use = "does nothing until `run` is called"]
pub struct Once<'a> {
    pub(crate) row: Row<'a>,
    pub(crate) wait: Option<Duration>,
}

impl<'a> Once<'a> {
    /// An application of the operation by the consumer. `fingerprint` tells a duplicate from a
    /// conflict; see [`Fingerprint`].
    pub fn new(
        consumer: Consumer<'a>,
        operation: &'a OperationKey,
        fingerprint: &'a Fingerprint,
    ) -> Self {
        let row = Row {
            consumer,
            operation,
            fingerprint,
            message_id: None,
            redelivered: false,
            replay: false,
        };
        Self { row, wait: None }
    }

    /// Names the message that brings the operation, so that a later conflict can name it. Default:
    /// none. NUL characters are stored as `␀`, and what is beyond 255 bytes is cut off.
    pub fn message_id(mut self, id: &'a str) -> Self {
        self.row.message_id = Some(id);
        self
    }

    /// Says that the broker may have delivered the message before. It decides nothing but under which
    /// kind a duplicate is counted: [`DuplicateKind::Redelivery`](crate::DuplicateKind::Redelivery).
    /// Default: false.
    pub const fn redelivered(mut self, redelivered: bool) -> Self {
        self.row.redelivered = redelivered;
        self
    }

    /// Says that a replay brings the operation, so that a duplicate is counted as
    /// [`DuplicateKind::Replay`](crate::DuplicateKind::Replay). Default: false.
    pub const fn replay(mut self, replay: bool) -> Self {
        self.row.replay = replay;
        self
    }

    /// Waits at most so long for a concurrent duplicate's transaction to end, then
    /// [`Outcome::InProgress`]. Use it where a caller waits for the answer (an HTTP request). At least
    /// a millisecond. Default: the connection's `lock_timeout`, which ends in an error.
    ///
    /// On PostgreSQL the claim then runs in a savepoint with its own `lock_timeout`: three more round
    /// trips. The timeout is told by the server's English message; under another `lc_messages` it
    /// comes as [`OnceError::Database`]. On SQLite it changes nothing: within a transaction that may
    /// write there is no other one to wait for.
    pub fn wait_at_most(mut self, limit: Duration) -> Self {
        self.wait = Some(limit);
        self
    }

    /// Applies the operation in the open transaction.
    ///
    /// When the handler fails its claim is withdrawn, so that even a caller who commits all the same
    /// leaves the operation free to be tried again; what the handler wrote until then is the
    /// transaction's, so roll it back.
    ///
    /// # Errors
    /// The handler's own error, or [`OnceError`] in its form. Roll the transaction back.
    pub fn run<C, R, E>(
        self,
        tx: &mut C,
        handler: impl FnOnce(&mut C) -> Result<R, E>,
    ) -> Result<Outcome<R>, E>
    where
        C: LoadConnection,
        C::Backend: InboxBackend,
        R: Serialize + DeserializeOwned,
        E: From<OnceError>,
    {
        self.answer(tx, |tx| Ok((handler(tx)?, OperationVerdict::Applied))).map(Outcome::from)
    }

    /// As [`Once::run`], for a handler that also says how the operation is to be kept.
    pub(crate) fn answer<C, R, E>(
        self,
        tx: &mut C,
        handler: impl FnOnce(&mut C) -> Result<(R, OperationVerdict), E>,
    ) -> Result<Answer<R>, E>
    where
        C: LoadConnection,
        C::Backend: InboxBackend,
        R: Serialize + DeserializeOwned,
        E: From<OnceError>,
    {
        self.check()?;
        require_transaction(tx)?;
        let message_id = self.row.message_id.map(clean);
        let once =
            Once { row: Row { message_id: message_id.as_deref(), ..self.row }, wait: self.wait };
        match once.claim(tx)? {
            Claim::Ours => once.apply(tx, handler).map(Answer::Applied),
            Claim::Known(first) => Ok(Answer::to_repeat(first)?),
            Claim::Busy => Ok(Answer::InProgress),
        }
    }

    /// A key can be built past its checks from a message that a foreign producer wrote.
    pub(crate) fn check(&self) -> Result<(), OnceError> {
        check_name("consumer", self.row.consumer.0)?;
        if !crate::rebuild::well_formed(self.row.consumer.0) {
            return Err(OnceError::ReservedName { consumer: self.row.consumer.0.to_owned() });
        }
        check_name("operation scope", self.row.operation.scope())?;
        Ok(check_name("operation", self.row.operation.id())?)
    }

    fn claim<C>(&self, tx: &mut C) -> Result<Claim, OnceError>
    where
        C: LoadConnection,
        C::Backend: InboxBackend,
    {
        for _ in 0..CLAIMS {
            let claimed = match self.wait {
                Some(limit) => {
                    C::Backend::waiting_at_most(tx, limit, |tx| claim_or_count(tx, &self.row))?
                }
                None => Some(claim_or_count(tx, &self.row)?),
            };
            match claimed {
                None => return Ok(Claim::Busy),
                Some(Claimed::Ours) => return Ok(Claim::Ours),
                Some(Claimed::Known(first)) => return Ok(Claim::Known(first)),
                // Deleted (by retention) between the two statements: it is free again.
                Some(Claimed::Gone) => {}
            }
        }
        Err(OnceError::RowGone)
    }

    fn apply<C, R, E>(
        &self,
        tx: &mut C,
        handler: impl FnOnce(&mut C) -> Result<(R, OperationVerdict), E>,
    ) -> Result<R, E>
    where
        C: LoadConnection,
        C::Backend: InboxBackend,
        R: Serialize,
        E: From<OnceError>,
    {
        let (result, verdict) = match handler(tx) {
            Ok(done) => done,
            Err(error) => {
                // In a transaction that PostgreSQL has aborted this fails, and nothing can commit.
                let _ = C::Backend::withdraw(tx, &self.row);
                return Err(error);
            }
        };
        let json = serde_json::to_string(&result).map_err(OnceError::UnwritableResult)?;
        // In a transaction that PostgreSQL has aborted (a handler swallowed an error) COMMIT rolls back
        // without an error, and this statement finds out.
        if !is_nothing(&json, verdict) || !is_sound(tx) {
            C::Backend::store_result(tx, &self.row, &json, verdict).map_err(OnceError::from)?;
        }
        Ok(result)
    }
}

/// Whether the claim says it all. Then its row is not written a second time, which would be a quarter of
/// what an inbox costs the database.
pub(crate) fn is_nothing(json: &str, verdict: OperationVerdict) -> bool {
    json == "null" && verdict == OperationVerdict::Applied
}

/// Whether diesel knows that no statement has aborted the open transaction. It takes that down after each
/// statement and shows it in no other way; whatever else it may print one day is taken for a no.
pub(crate) fn is_sound<C: LoadConnection>(tx: &mut C) -> bool {
    let status = C::TransactionManager::transaction_manager_status_mut(tx);
    format!("{status:?}").contains("requires_rollback_maybe_up_to_top_level: false")
}

pub(crate) enum Claim {
    Ours,
    Known(First),
    Busy,
}

pub(crate) enum Claimed {
    Ours,
    Known(First),
    Gone,
}

fn claim_or_count<C>(tx: &mut C, row: &Row<'_>) -> QueryResult<Claimed>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    if C::Backend::claim(tx, row)? {
        return Ok(Claimed::Ours);
    }
    Ok(C::Backend::count_repeat(tx, row)?.map_or(Claimed::Gone, Claimed::Known))
}

/// A BEGIN sent past diesel is not seen and refused too: nothing then ties it to this call.
fn require_transaction<C: LoadConnection>(tx: &mut C) -> Result<(), OnceError> {
    let status = C::TransactionManager::transaction_manager_status_mut(tx);
    match status.transaction_depth() {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(OnceError::NoTransaction),
        Err(error) => Err(error.into()),
    }
}
