use std::future::Future;
use std::time::Duration;

use message::Fingerprint;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::call::{CallFailure, Outcome, bounded, over_in};
use super::compensate::DECISION;
use super::effect::Ask;
use super::effects::Shared;
use super::ending::Ending;
use super::held::{Held, span};
use super::intent::{Begun, Intent, Ticket};
use super::json::written;
use super::{Answer, EffectError, Effects, Policy, ProviderKey, State};
use crate::backoff::Backoff;

/// Between attempts to write down what a call has brought.
const RECONNECT: Backoff =
    Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(2) };

/// Who finds a call of somebody else looks again after so long: most calls are quick.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// An effect that is wanted.
pub(super) struct One<'a> {
    pub(super) effects: &'a Effects,
    pub(super) name: String,
    pub(super) policy: Policy,
    pub(super) fingerprint: Fingerprint,
    pub(super) deadline: Duration,
}

impl One<'_> {
    /// Performs it, and counts how that ended.
    pub(super) async fn perform<R, F, Fut>(
        &self,
        ask: Option<Ask<'_>>,
        call: F,
    ) -> Result<R, EffectError>
    where
        R: Serialize + DeserializeOwned + Send,
        F: FnOnce(ProviderKey) -> Fut + Send,
        Fut: Future<Output = Result<R, CallFailure>> + Send,
    {
        let shared = &self.effects.shared;
        let done = self.run(ask, call).await;
        let ending = match &done {
            Ok((_, ending)) => *ending,
            Err(error) => Ending::of(error),
        };
        shared.telemetry.ended(ending);
        if ending == Ending::Review {
            let (consumer, operation) = (&shared.consumer, &self.effects.operation);
            tracing::warn!(consumer, %operation, effect = self.name, "an effect waits for a person's decision");
        }
        done.map(|(result, _)| result)
    }

    async fn run<R, F, Fut>(
        &self,
        mut ask: Option<Ask<'_>>,
        call: F,
    ) -> Result<(R, Ending), EffectError>
    where
        R: Serialize + DeserializeOwned + Send,
        F: FnOnce(ProviderKey) -> Fut + Send,
        Fut: Future<Output = Result<R, CallFailure>> + Send,
    {
        let asks = ask.is_some();
        let (mut until, mut begun) = self.begin(asks).await?;
        if let Begun::Ask(ticket) = begun
            && let Some(ask) = ask.take()
        {
            self.asked(ticket, ask).await?;
            // One question: who is told to ask again has to wait.
            (until, begun) = self.begin(false).await?;
        }
        let effect = || self.name.clone();
        match begun {
            Begun::Call(ticket) => self.call(ticket, until, call).await,
            Begun::Done(result) => Ok((self.read(result)?, Ending::Stored)),
            Begun::Refused(reason) => Err(EffectError::Refused { effect: effect(), reason }),
            Begun::UnderWay(left) => {
                Err(EffectError::UnderWay { effect: effect(), again_in: left.min(LOOK_AGAIN) })
            }
            // Whoever does ask lets its message know.
            Begun::Waits(again_in) if !asks => Err(self.asking(again_in.max(LOOK_AGAIN))),
            Begun::Waits(again_in) => Err(self.asking(again_in)),
            // Only for whoever can ask.
            Begun::Ask(_) => Err(self.asking(Duration::ZERO)),
            Begun::Review => Err(self.in_review()),
            Begun::Conflict => Err(EffectError::Conflict { effect: effect() }),
        }
    }

    /// Puts the intent on record. The call's time runs from before: by the time the lease ends, which begins later,
    /// this process is certain to have given up.
    async fn begin(&self, asks: bool) -> Result<(Instant, Begun), EffectError> {
        let shared = &self.effects.shared;
        let intent = Intent {
            effect: self.name.clone(),
            fingerprint: self.fingerprint,
            policy: self.policy,
            asks,
            deadline: self.deadline,
            owner: shared.owner.clone(),
        };
        let until = over_in(self.deadline);
        Ok((until, shared.ledger.begin(self.effects.operation.clone(), intent).await?))
    }

    async fn asked(&self, ticket: Ticket, ask: Ask<'_>) -> Result<(), EffectError> {
        let shared = &self.effects.shared;
        let until = over_in(shared.settings.ask_deadline);
        let answer = bounded(until, || ask(ticket.key)).await.answer();
        let answer = answer.unwrap_or(Answer::StillUnknown);
        shared.telemetry.asked(&answer);
        shared.ledger.answer(ticket, answer).await.map(drop)
    }

    async fn call<R, F, Fut>(
        &self,
        ticket: Ticket,
        until: Instant,
        call: F,
    ) -> Result<(R, Ending), EffectError>
    where
        R: Serialize + DeserializeOwned + Send,
        F: FnOnce(ProviderKey) -> Fut + Send,
        Fut: Future<Output = Result<R, CallFailure>> + Send,
    {
        let since = Instant::now();
        let ended = bounded(until, || call(ticket.key)).await;
        self.effects.shared.telemetry.called(ended.kind(), since.elapsed());
        let ended = ended.answer().unwrap_or_else(Err);
        let (outcome, unwritable) = match &ended {
            Ok(result) => match written(result) {
                Ok(json) => (Outcome::Done(json), None),
                // It was performed all the same.
                Err(error) => (Outcome::Done(None), Some(error)),
            },
            Err(failure) => (failure.into(), None),
        };
        let said = outcome.clone();
        let (held, newest) = self.settle(ticket, outcome).await?;
        if let Some(source) = unwritable {
            let effect = self.name.clone();
            return Err(EffectError::Unwritable { effect, what: "result", source });
        }
        let asked_for = held.fingerprint == Some(self.fingerprint);
        match (ended, held.state) {
            // What is stored was brought by another request.
            (_, State::Done) if !asked_for => {
                Err(EffectError::Conflict { effect: self.name.clone() })
            }
            (Ok(result), State::Done) if newest && said == Outcome::Done(held.result.clone()) => {
                Ok((result, Ending::Done))
            }
            // Everybody gets the one result that is stored.
            (_, State::Done) => Ok((self.read(held.result)?, Ending::Stored)),
            _ => Err(self.standing(held)),
        }
    }

    /// Reports how the call ended. In a task of its own: a handler that is given up meanwhile must not take with it
    /// what is known.
    async fn settle(&self, ticket: Ticket, outcome: Outcome) -> Result<(Held, bool), EffectError> {
        let shared = self.effects.shared.clone();
        let told = tokio::spawn(async move {
            let until = over_in(shared.settings.grace);
            let mut failures = 0;
            loop {
                let error = match shared.ledger.settle(ticket, outcome.clone()).await {
                    Ok(settled) => {
                        if let (Some((held, false)), Outcome::Done(_)) = (&settled, &outcome) {
                            was_late(&shared, held);
                        }
                        return Ok(settled);
                    }
                    Err(error) => error,
                };
                failures += 1;
                if Instant::now() >= until {
                    return Err(error);
                }
                sleep(RECONNECT.pause(failures)).await;
            }
        });
        match told.await {
            Ok(settled) => settled?.ok_or(EffectError::Database(diesel::result::Error::NotFound)),
            Err(_) => {
                Err(EffectError::Unavailable { reason: "the runtime is shutting down".to_owned() })
            }
        }
    }

    /// What a row without a result means to whoever wants it.
    fn standing(&self, held: Held) -> EffectError {
        let effect = self.name.clone();
        let left = |micros: Option<i64>| span(micros.unwrap_or_default());
        match (held.state, held.policy) {
            (State::Failed, _) => EffectError::Refused { effect, reason: held.error },
            (State::Attempted, _) => EffectError::UnderWay { effect, again_in: left(held.lease) },
            (State::Unknown, _) if held.review => self.in_review(),
            (State::Unknown, Policy::Ask) => self.asking(left(held.ask_in)),
            (State::Unknown, Policy::RepeatSafe | Policy::Review) => {
                EffectError::Repeat { effect, key: held.key, reason: held.error }
            }
            (State::Intended | State::Done, _) => {
                EffectError::NotDone { effect, reason: held.error }
            }
        }
    }

    fn read<R: DeserializeOwned>(&self, result: Option<String>) -> Result<R, EffectError> {
        serde_json::from_str(result.as_deref().unwrap_or("null"))
            .map_err(|source| EffectError::Unreadable { effect: self.name.clone(), source })
    }

    fn in_review(&self) -> EffectError {
        let again_in = self.effects.elsewhere.then_some(DECISION);
        EffectError::Review { effect: self.name.clone(), key: self.key(), again_in }
    }

    fn asking(&self, again_in: Duration) -> EffectError {
        let again_in = if self.effects.elsewhere { again_in.min(DECISION) } else { again_in };
        EffectError::Asking { effect: self.name.clone(), key: self.key(), again_in }
    }

    fn key(&self) -> ProviderKey {
        self.effects.key(&self.name)
    }
}

/// An attempt has reported that it is done after another one, or a decision, has followed it.
fn was_late(shared: &Shared, held: &Held) {
    shared.telemetry.ended(Ending::Late);
    let Held { scope, operation, effect, key, state, .. } = held;
    tracing::warn!(consumer = shared.consumer, scope, operation, effect, %key, now = %state,
        "an attempt says that it is done after another one or a decision has followed it: it may have been performed twice");
}
