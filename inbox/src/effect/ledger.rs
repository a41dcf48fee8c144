use std::time::Duration;

use db::{CallError, Db};
use diesel::QueryResult;
use diesel::result::Error;
use futures_util::future::BoxFuture;
use message::OperationKey;

use super::backend::EffectBackend;
use super::call::Outcome;
use super::held::Held;
use super::intent::{Begun, Intent, Ticket, lease};
use super::{Answer, EffectError, ProviderKey, Settings, State};
use crate::builder::InboxConnection;
use crate::store::{FirstEffect as First, NewEffect, micros};
use crate::{Consumer, rebuild};

/// Longest wait for the database beyond its own limits: a frozen session answers to none.
const LIMIT: Duration = Duration::from_secs(60);

/// What is needed of a database, whichever it is. Each call is one transaction.
pub(crate) trait Ledger: Send + Sync + std::fmt::Debug {
    /// Puts the intent on record, or says what keeps it from being called.
    fn begin(&self, operation: OperationKey, intent: Intent) -> Reply<'_, Begun>;
    /// How an attempt ended; the row after it, and whether the attempt was the newest. `None` where the row is gone.
    fn settle(&self, ticket: Ticket, outcome: Outcome) -> Reply<'_, Option<(Held, bool)>>;
    /// What a provider said; the row after it, and whether it mattered.
    fn answer(
        &self,
        ticket: Ticket,
        answer: Answer<Option<String>>,
    ) -> Reply<'_, Option<(Held, bool)>>;
    /// What an effect's compensation begins with: its row, called off for this reason where it was never performed.
    fn call_off(
        &self,
        operation: OperationKey,
        effect: String,
        reason: &'static str,
    ) -> Reply<'_, Held>;
    /// Takes those whose caller has died for unknown, and those that nobody could answer for too long to a person.
    fn look_after(&self) -> Reply<'_, LookedAfter>;
    /// Takes what the provider is to be asked about now.
    fn take_due(&self, names: Option<Vec<String>>) -> Reply<'_, Vec<Held>>;
    /// How many are unknown, and how many of these wait for a person.
    fn figures(&self) -> Reply<'_, (i64, i64)>;
}

pub(crate) type Reply<'a, T> = BoxFuture<'a, Result<T, EffectError>>;

/// What one look after open effects has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LookedAfter {
    pub(crate) lapsed: usize,
    pub(crate) reviewed: usize,
}

/// The effects of one consumer in one database.
pub(crate) struct LedgerOf<C: InboxConnection> {
    pub(crate) db: Db<C>,
    pub(crate) consumer: String,
    pub(crate) settings: Settings,
}

impl<C: InboxConnection> std::fmt::Debug for LedgerOf<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

impl<C: InboxConnection> LedgerOf<C> {
    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut C, Consumer<'_>, &Settings) -> QueryResult<T> + Send + 'static,
    ) -> Reply<'_, T> {
        let (consumer, settings) = (self.consumer.clone(), self.settings.clone());
        Box::pin(async move {
            let done: Result<T, CallError<Error>> = self
                .db
                .call_within(LIMIT, move |conn| {
                    conn.write(|tx| work(tx, Consumer(&consumer), &settings))
                })
                .await;
            Ok(done?)
        })
    }
}

impl<C: InboxConnection> Ledger for LedgerOf<C> {
    fn begin(&self, operation: OperationKey, intent: Intent) -> Reply<'_, Begun> {
        self.call(move |tx, consumer, settings| {
            let key = ProviderKey::of(consumer, &operation, &intent.effect);
            let row = NewEffect {
                consumer,
                operation: &operation,
                effect: &intent.effect,
                key,
                fingerprint: Some(&intent.fingerprint),
                policy: intent.policy,
                first: First::Attempted { owner: &intent.owner, lease: lease(&intent, settings) },
            };
            if let Some(id) = C::Backend::insert_effect(tx, &row)? {
                let fingerprint = Some(intent.fingerprint);
                return Ok(Begun::Call(Ticket { id, epoch: 1, key, fingerprint }));
            }
            let held = C::Backend::lock_effect(tx, consumer, &operation, &intent.effect)?;
            change::<C, _>(tx, gone(held)?, |held| held.begin(&intent, settings))
        })
    }

    fn settle(&self, ticket: Ticket, outcome: Outcome) -> Reply<'_, Option<(Held, bool)>> {
        self.call(move |tx, _, settings| {
            let Some(held) = C::Backend::lock_effect_by(tx, ticket.id)? else { return Ok(None) };
            let was = held.state;
            let ended = change::<C, _>(tx, held, |held| {
                let newest = held.settle(ticket, outcome, settings);
                (held.clone(), newest)
            })?;
            // Whoever waits for an effect that was unknown has been told another time.
            if was != State::Attempted || !ended.1 {
                wake::<C>(tx, &ended.0)?;
            }
            Ok(Some(ended))
        })
    }

    fn answer(
        &self,
        ticket: Ticket,
        answer: Answer<Option<String>>,
    ) -> Reply<'_, Option<(Held, bool)>> {
        self.call(move |tx, _, settings| {
            let Some(held) = C::Backend::lock_effect_by(tx, ticket.id)? else { return Ok(None) };
            let answered = change::<C, _>(tx, held, |held| {
                let mattered = held.answered(ticket, answer, settings);
                (held.clone(), mattered)
            })?;
            wake::<C>(tx, &answered.0)?;
            Ok(Some(answered))
        })
    }

    fn call_off(
        &self,
        operation: OperationKey,
        effect: String,
        reason: &'static str,
    ) -> Reply<'_, Held> {
        self.call(move |tx, consumer, _| {
            let row = NewEffect {
                consumer,
                operation: &operation,
                effect: &effect,
                key: ProviderKey::of(consumer, &operation, &effect),
                fingerprint: None,
                policy: super::Policy::Review,
                first: First::CalledOff { reason },
            };
            C::Backend::insert_effect(tx, &row)?;
            let held = gone(C::Backend::lock_effect(tx, consumer, &operation, &effect)?)?;
            change::<C, _>(tx, held, |held| {
                if held.state == State::Attempted && held.lease.is_none_or(|left| left <= 0) {
                    held.lapse();
                }
                // Nobody may perform it after it was said that there is nothing to undo.
                if held.state == State::Intended {
                    held.refuse(reason.to_owned());
                }
                held.clone()
            })
        })
    }

    fn look_after(&self) -> Reply<'_, LookedAfter> {
        self.call(move |tx, consumer, settings| {
            let rows = i64::from(settings.batch);
            let mut done = LookedAfter::default();
            for id in C::Backend::lapsed_effects(tx, consumer, rows)? {
                let Some(held) = C::Backend::lock_effect_by(tx, id)? else { continue };
                let held = change::<C, _>(tx, held, |held| {
                    held.lapse();
                    held.clone()
                })?;
                wake::<C>(tx, &held)?;
                done.lapsed += 1;
                done.reviewed += usize::from(held.review);
            }
            let limit = micros(settings.unknown_for);
            for id in C::Backend::overdue_effects(tx, consumer, limit, rows)? {
                let Some(held) = C::Backend::lock_effect_by(tx, id)? else { continue };
                change::<C, _>(tx, held, Held::call_a_person)?;
                done.reviewed += 1;
            }
            Ok(done)
        })
    }

    fn take_due(&self, names: Option<Vec<String>>) -> Reply<'_, Vec<Held>> {
        self.call(move |tx, consumer, settings| {
            let names = names.map(|names| serde_json::Value::from(names).to_string());
            let rows = i64::from(settings.batch);
            let mut taken = Vec::new();
            for id in C::Backend::due_effects(tx, consumer, names.as_deref(), rows)? {
                let Some(held) = C::Backend::lock_effect_by(tx, id)? else { continue };
                taken.push(change::<C, _>(tx, held, |held| {
                    held.take_ask(settings);
                    held.clone()
                })?);
            }
            Ok(taken)
        })
    }

    fn figures(&self) -> Reply<'_, (i64, i64)> {
        self.call(|tx, consumer, _| C::Backend::effect_figures(tx, consumer))
    }
}

/// Changes a locked row.
pub(crate) fn change<C: InboxConnection, T>(
    tx: &mut C,
    mut held: Held,
    change: impl FnOnce(&mut Held) -> T,
) -> QueryResult<T> {
    let before = held.clone();
    let done = change(&mut held);
    if held != before && !C::Backend::write_effect(tx, &held, before.epoch)? {
        return Err(Error::NotFound);
    }
    Ok(done)
}

/// Makes the message that waits for an effect due, where there is one.
pub(crate) fn wake<C: InboxConnection>(tx: &mut C, held: &Held) -> QueryResult<()> {
    // A message that asks by itself comes when it is time to; what a person decides about has not been decided.
    let waits = held.state == State::Unknown && held.policy != super::Policy::RepeatSafe;
    if waits || held.state == State::Attempted {
        return Ok(());
    }
    let Ok(operation) = OperationKey::new(&held.scope, &held.operation) else { return Ok(()) };
    // A rebuild waits for the effects that it shares with its consumer.
    let names = rebuild::names(tx, &held.consumer)?;
    C::Backend::wake_parked(tx, &names, &operation).map(drop)
}

/// A row that has just been found to be there, and that retention has deleted since.
fn gone(held: Option<Held>) -> QueryResult<Held> {
    held.ok_or(Error::NotFound)
}
