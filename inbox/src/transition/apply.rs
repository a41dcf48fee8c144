use diesel::connection::{LoadConnection, TransactionManager};
use message::check_name;

use super::entity::Kept;
use super::{Cause, Decided, Entity, Label, Machine, TransitionBackend, TransitionError, Verdict};
use crate::backend::InboxBackend;
use crate::store::NewTransition;
use crate::telemetry;

/// Lost races for one entity that are outrun before giving up. Each means that another transaction
/// moved it in between.
const ROUNDS: u32 = 16;

impl<S: Label, E: Label> Machine<S, E> {
    /// Judges an event against the entity's state in `inbox_states`, moves it where the rule says so,
    /// and writes the history, all in the open transaction. An entity that was never heard of is in
    /// the initial state.
    ///
    /// `cause` is kept with the history: pass a handler's [`Context`](crate::Context), or a [`Cause`].
    /// What came early or goes to review changes nothing and leaves no history: return
    /// [`Decided::answer`], and the inbox parks the message.
    ///
    /// # Errors
    /// [`TransitionError`]; roll the transaction back.
    pub fn apply<'a, C>(
        &self,
        tx: &mut C,
        entity: &str,
        event: E,
        cause: impl Into<Cause<'a>>,
    ) -> Result<Decided<S, E>, TransitionError>
    where
        C: LoadConnection,
        C::Backend: InboxBackend,
    {
        let mut kept = Kept { machine: self.name, id: entity, initial: self.initial, version: 0 };
        let decided = self.decide(tx, &mut kept, event)?;
        self.record(tx, &decided, Some(kept.version), &cause.into())?;
        Ok(decided)
    }

    /// [`apply`](Self::apply) to an entity whose state is kept in a table of yours. One that is not
    /// there has not been told of yet: its events are early.
    ///
    /// # Errors
    /// [`TransitionError`]; roll the transaction back.
    pub fn apply_to<'a, C>(
        &self,
        tx: &mut C,
        mut entity: impl Entity<C, S>,
        event: E,
        cause: impl Into<Cause<'a>>,
    ) -> Result<Decided<S, E>, TransitionError>
    where
        C: LoadConnection,
        C::Backend: InboxBackend,
    {
        let decided = self.decide(tx, &mut entity, event)?;
        self.record(tx, &decided, None, &cause.into())?;
        Ok(decided)
    }

    fn decide<C: LoadConnection>(
        &self,
        tx: &mut C,
        entity: &mut impl Entity<C, S>,
        event: E,
    ) -> Result<Decided<S, E>, TransitionError> {
        check_name("entity", entity.id())?;
        require_transaction(tx)?;
        for _ in 0..ROUNDS {
            let from = entity.load(tx)?;
            let verdict = from.map_or(Verdict::Early, |state| self.verdict(state, event));
            if let (Some(from), Verdict::To(to)) = (from, verdict)
                && !entity.compare_and_set(tx, from, to)?
            {
                // Moved by somebody else since it was read; the event may mean another thing now.
                continue;
            }
            let entity = entity.id().to_owned();
            return Ok(Decided { machine: self.name, entity, event, from, verdict });
        }
        Err(TransitionError::Contended { rounds: ROUNDS })
    }

    fn record<C>(
        &self,
        tx: &mut C,
        decided: &Decided<S, E>,
        version: Option<i64>,
        cause: &Cause<'_>,
    ) -> Result<(), TransitionError>
    where
        C: LoadConnection,
        C::Backend: InboxBackend,
    {
        let committed = match decided.verdict {
            Verdict::To(_) | Verdict::Duplicate | Verdict::Stale => {
                decided.from.zip(decided.state())
            }
            Verdict::Early | Verdict::Review => None,
        };
        if let Some((from, to)) = committed {
            let row = NewTransition {
                machine: self.name,
                entity: &decided.entity,
                version,
                event: decided.event.name(),
                from: from.name(),
                to: to.name(),
                verdict: decided.verdict.as_str(),
                cause,
            };
            C::Backend::record(tx, &row)?;
        }
        telemetry::transition(self.name, decided.verdict.as_str());
        Ok(())
    }
}

fn require_transaction<C: LoadConnection>(tx: &mut C) -> Result<(), TransitionError> {
    let status = C::TransactionManager::transaction_manager_status_mut(tx);
    match status.transaction_depth()? {
        Some(_) => Ok(()),
        None => Err(TransitionError::NoTransaction),
    }
}
