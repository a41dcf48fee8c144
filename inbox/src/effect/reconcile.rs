use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use db::Db;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use message::OperationKey;
use serde::Serialize;
use tokio::select;
use tokio::time::sleep;

use super::call::{bounded, over_in};
use super::effects::Shared;
use super::held::Held;
use super::json::told;
use super::{Answer, BoxError, EffectError, ProviderKey, Settings};
use crate::backoff::Backoff;
use crate::builder::InboxConnection;
use crate::{BuildError, Consumer};

/// Questions that are under way at the same time.
const TOGETHER: usize = 10;

/// What a provider is to be asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Question {
    /// What the provider knows the effect by.
    pub key: ProviderKey,
    /// The effect's name.
    pub effect: String,
    /// The operation that it belongs to.
    pub operation: OperationKey,
    /// How often the provider has been asked, this time included.
    pub asks: u32,
}

pub(crate) type Asker =
    Arc<dyn Fn(Question) -> BoxFuture<'static, Answer<Option<String>>> + Send + Sync>;

/// A provider's question function in the form in which it is kept.
pub(crate) fn asker<R, F, Fut>(ask: F) -> Asker
where
    R: Serialize + 'static,
    F: Fn(Question) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Answer<R>, BoxError>> + Send + 'static,
{
    Arc::new(move |question| ask(question).map(told).boxed())
}

/// Who can be asked about which effect.
#[derive(Clone, Default)]
pub(crate) struct Askers {
    pub(crate) by_name: HashMap<String, Asker>,
    pub(crate) rest: Option<Asker>,
}

impl Askers {
    fn of(&self, effect: &str) -> Option<&Asker> {
        self.by_name.get(effect).or(self.rest.as_ref())
    }

    /// `None` for all.
    fn names(&self) -> Option<Vec<String>> {
        self.rest.is_none().then(|| self.by_name.keys().cloned().collect())
    }
}

/// Looks after the effects that nobody is at: takes those whose process has died for unknown, asks providers what
/// became of them, and hands to a person what stays unknown.
///
/// An [`Inbox`](crate::Inbox) has one; give it what it can ask with [`Builder::reconcile`](crate::Builder::reconcile).
/// Several may run at the same time.
#[must_use = "does nothing until it is run"]
pub struct Reconciler {
    shared: Arc<Shared>,
    askers: Askers,
}

/// What one round has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reconciled {
    /// Taken for unknown: their process died, or gave the call up.
    pub lapsed: u64,
    /// Handed to a person.
    pub reviewed: u64,
    /// The provider said that they were done.
    pub done: u64,
    /// The provider said that they were not.
    pub not_done: u64,
    /// The provider does not know yet.
    pub still_unknown: u64,
}

impl Reconciled {
    /// Whether messages may go on now that could not before.
    pub(crate) const fn decided(&self) -> bool {
        self.lapsed + self.reviewed + self.done + self.not_done > 0
    }
}

impl Reconciler {
    /// For the effects of a consumer.
    ///
    /// # Errors
    /// [`BuildError::BadSetting`].
    pub fn new<C: InboxConnection>(
        db: Db<C>,
        consumer: Consumer<'_>,
        settings: Settings,
    ) -> Result<Self, BuildError> {
        settings.check()?;
        Ok(Self::over(Arc::new(Shared::new(db, consumer.0, settings)), Askers::default()))
    }

    pub(crate) const fn over(shared: Arc<Shared>, askers: Askers) -> Self {
        Self { shared, askers }
    }

    /// How to ask about the effects of this name. An error or a panic is [`Answer::StillUnknown`].
    pub fn ask<R, F, Fut>(mut self, effect: impl Into<String>, ask: F) -> Self
    where
        R: Serialize + 'static,
        F: Fn(Question) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Answer<R>, BoxError>> + Send + 'static,
    {
        self.askers.by_name.insert(effect.into(), asker(ask));
        self
    }

    /// How to ask about all others.
    pub fn ask_any<R, F, Fut>(mut self, ask: F) -> Self
    where
        R: Serialize + 'static,
        F: Fn(Question) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Answer<R>, BoxError>> + Send + 'static,
    {
        self.askers.rest = Some(asker(ask));
        self
    }

    /// One round over what is due, at most [`Settings::batch`] of each kind.
    ///
    /// # Errors
    /// [`EffectError`] where the ledger could not be used; the next round goes on from there.
    pub async fn round(&self) -> Result<Reconciled, EffectError> {
        let shared = &self.shared;
        let looked = shared.ledger.look_after().await?;
        shared.telemetry.looked_after(looked);
        let mut done = Reconciled {
            lapsed: looked.lapsed as u64,
            reviewed: looked.reviewed as u64,
            ..Reconciled::default()
        };
        let names = self.askers.names();
        if names.as_ref().is_none_or(|names| !names.is_empty()) {
            let due = shared.ledger.take_due(names).await?;
            for some in due.chunks(TOGETHER) {
                for answered in join_all(some.iter().map(|held| self.asked(held))).await {
                    let Some((answer, reviewed)) = answered? else { continue };
                    match answer {
                        Answer::Done(()) => done.done += 1,
                        Answer::NotDone => done.not_done += 1,
                        Answer::StillUnknown => done.still_unknown += 1,
                    }
                    done.reviewed += u64::from(reviewed);
                }
            }
        }
        let (unknown, review) = shared.ledger.figures().await?;
        shared.telemetry.figures(unknown, review);
        Ok(done)
    }

    /// Asks about one and writes the answer down; `None` where it did not matter any more.
    async fn asked(&self, held: &Held) -> Result<Option<(Answer<()>, bool)>, EffectError> {
        let Some(ask) = self.askers.of(&held.effect) else { return Ok(None) };
        let operation = OperationKey::new(&held.scope, &held.operation)?;
        let question = Question {
            key: held.key,
            effect: held.effect.clone(),
            operation,
            asks: held.asks.unsigned_abs(),
        };
        let until = over_in(self.shared.settings.ask_deadline);
        let answer = bounded(until, || ask(question)).await.answer();
        let answer = answer.unwrap_or(Answer::StillUnknown);
        self.shared.telemetry.asked(&answer);
        let said = match &answer {
            Answer::Done(_) => Answer::Done(()),
            Answer::NotDone => Answer::NotDone,
            Answer::StillUnknown => Answer::StillUnknown,
        };
        let told = self.shared.ledger.answer(held.ticket(), answer).await?;
        Ok(told.and_then(|(after, mattered)| mattered.then_some((said, after.review))))
    }

    /// Rounds every [`Settings::poll`] until `stop` completes. What the database refuses is logged and tried again.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let rounds = async {
            let mut failures = 0;
            loop {
                match self.round().await {
                    Ok(done) => {
                        failures = 0;
                        if done != Reconciled::default() {
                            self.tell(&done);
                        }
                        sleep(Backoff::shortened(self.shared.settings.poll)).await;
                    }
                    Err(error) => {
                        failures += 1;
                        let pause = RECONNECT.pause(failures);
                        if failures.is_power_of_two() {
                            let consumer = &self.shared.consumer;
                            tracing::warn!(consumer, %error, ?pause, "cannot look after effects");
                        }
                        sleep(pause).await;
                    }
                }
            }
        };
        select! {
            biased;
            () = stop => {}
            () = rounds => {}
        }
    }

    fn tell(&self, done: &Reconciled) {
        let consumer = &self.shared.consumer;
        let Reconciled { lapsed, reviewed, done, not_done, still_unknown } = *done;
        if reviewed > 0 {
            tracing::warn!(consumer, reviewed, "effects wait for a person's decision");
        }
        tracing::info!(consumer, lapsed, done, not_done, still_unknown, "looked after effects");
    }
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconciler").field("ledger", &self.shared).finish_non_exhaustive()
    }
}

/// While the database is away.
const RECONNECT: Backoff = Backoff {
    first: std::time::Duration::from_millis(100),
    longest: std::time::Duration::from_secs(10),
};
