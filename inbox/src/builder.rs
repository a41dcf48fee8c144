use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use db::Db;
use diesel::connection::LoadConnection;
use message::{Event, OperationKey, check_name};
use serde::Serialize;
use serde::de::DeserializeOwned;
use transport::{Publisher, Subscriber};

use crate::backend::InboxBackend;
use crate::effect::{Answer, Askers, BoxError, Question, asker};
use crate::ending::Ended;
use crate::handler::Handler;
use crate::incoming::Incoming;
use crate::reply::Replies;
use crate::retention::Retention;
use crate::route::{KeyFn, Route, Routes, of_closure, of_handler};
use crate::{BuildError, Consumer, Context, Failure, Inbox, OnReplay, Settings};

/// A connection an inbox can work on: `PgConnection` or `SqliteConnection`.
pub trait InboxConnection:
    db::Backend + migrations::Migrate + LoadConnection<Backend: InboxBackend>
{
}

impl<C> InboxConnection for C where
    C: db::Backend + migrations::Migrate + LoadConnection<Backend: InboxBackend>
{
}

pub(crate) type Observer = Arc<dyn Fn(&Ended<'_>) + Send + Sync>;

/// Assembles an [`Inbox`].
#[must_use = "nothing is received before `build` and `run`"]
pub struct Builder<C: InboxConnection> {
    pub(crate) consumer: String,
    generation: u32,
    pub(crate) db: Db<C>,
    pub(crate) subscriber: Arc<dyn Subscriber>,
    pub(crate) queue: String,
    pub(crate) settings: Settings,
    pub(crate) observer: Option<Observer>,
    pub(crate) replies: Option<Arc<Replies>>,
    pub(crate) askers: Askers,
    handlers: Vec<(&'static str, Box<dyn Route<C>>)>,
    keys: HashMap<String, KeyFn>,
}

impl<C: InboxConnection> Builder<C> {
    pub(crate) fn new(
        consumer: Consumer<'_>,
        db: Db<C>,
        subscriber: Arc<dyn Subscriber>,
        queue: &str,
    ) -> Self {
        Self {
            consumer: consumer.0.to_owned(),
            generation: 1,
            db,
            subscriber,
            queue: queue.to_owned(),
            settings: Settings::default(),
            observer: None,
            replies: None,
            askers: Askers::default(),
            handlers: Vec::new(),
            keys: HashMap::new(),
        }
    }

    /// Applies one kind of event with a closure that runs inside the transaction. Its result is kept
    /// with the operation. `on_replay` says what a replay may do with it.
    ///
    /// The closure can run several times for one delivery; only the run that commits leaves anything
    /// behind. It must do nothing outside `tx`.
    pub fn on<E, R>(
        mut self,
        on_replay: OnReplay,
        apply: impl Fn(&mut C, &E, &Context<'_>) -> Result<R, Failure> + Send + Sync + 'static,
    ) -> Self
    where
        E: Event + DeserializeOwned + Send + Sync + 'static,
        R: Serialize + 'static,
    {
        self.handlers.push((E::KIND, of_closure(on_replay, apply)));
        self
    }

    /// Applies one kind of event with a [`Handler`].
    pub fn handler<H: Handler<C>>(mut self, handler: H) -> Self {
        self.handlers.push((H::Event::KIND, of_handler(handler)));
        self
    }

    /// Names the business operation of messages of a kind, for producers that send no operation
    /// header. Goes before that header and before [`Event::operation`]; where `key` returns `None`
    /// they decide. The last function given for a kind counts.
    pub fn operation_key(
        mut self,
        kind: impl Into<String>,
        key: impl Fn(&Incoming) -> Option<OperationKey> + Send + Sync + 'static,
    ) -> Self {
        self.keys.insert(kind.into(), Box::new(key));
        self
    }

    /// Answers commands: a message that names a queue to reply to (`reply_to`, or the header
    /// `counterfoil-reply-to`) gets its handler's result there, as JSON, with the command's `correlation_id`
    /// (or else its message id). A duplicate gets the result of the first time again, so whoever got no
    /// answer sends the same command again. Default: nobody is answered.
    ///
    /// The header `counterfoil-outcome` says how the command ended: `applied`, `stale`, `duplicate`, or
    /// `forgotten` for a duplicate whose result [retention](Self::retention) has dropped; else the reason for
    /// which it was parked for a person, such as `conflict` or `rejected`, with `null` as the body. What is to
    /// be tried again is answered then. A business refusal that is to be every duplicate's answer is a result
    /// (`Ok`), not a [`Failure`].
    ///
    /// The reply is sent after the commit and before the command is acknowledged: a crash in between sends it
    /// again, so it can come twice. For a command that was parked and retried there is no second delivery: if
    /// its reply is lost its sender has to ask again. Replays are not answered.
    ///
    /// The name of the queue is the sender's word, and the default exchange reaches every queue: `allowed` says
    /// which are answered, by a prefix as a rule. What it refuses is counted and not answered. Commands that
    /// want a reply are not applied in [batches](Self::batch).
    pub fn replies(
        mut self,
        publisher: Arc<dyn Publisher>,
        allowed: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.replies = Some(Arc::new(Replies::new(publisher, Box::new(allowed))));
        self
    }

    /// Builds a projection anew beside the old one, under the generation that
    /// [`rebuild::begin`](crate::rebuild::begin) gave out: operations are kept as in `billing#2`, so the
    /// history applies again. Every handler must be [`ReplaySafe`](OnReplay::ReplaySafe). Default 1: the
    /// consumer under its own name.
    pub fn generation(mut self, generation: u32) -> Self {
        self.generation = generation;
        self
    }

    /// Replaces all settings.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets [`Settings::concurrency`].
    pub fn concurrency(mut self, deliveries: usize) -> Self {
        self.settings.concurrency = deliveries;
        self
    }

    /// Sets [`Settings::ordered`].
    pub fn ordered(mut self) -> Self {
        self.settings.ordered = true;
        self
    }

    /// Sets [`Settings::batch`].
    pub fn batch(mut self, deliveries: usize) -> Self {
        self.settings.batch = deliveries;
        self
    }

    /// Sets [`Settings::retention`]: how long operations, results and parked messages are kept.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.settings.retention = Some(retention);
        self
    }

    /// How to ask a provider what became of effects of this name whose outcome is unknown: those declared
    /// [`reconciled`](crate::effect::Effect::reconciled) or [`ask`](crate::effect::Effect::ask). What it says is
    /// written down, and the message that waits for it comes again at once. The last one given for a name counts.
    pub fn reconcile<R, F, Fut>(mut self, effect: impl Into<String>, ask: F) -> Self
    where
        R: Serialize + 'static,
        F: Fn(Question) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Answer<R>, BoxError>> + Send + 'static,
    {
        self.askers.by_name.insert(effect.into(), asker(ask));
        self
    }

    /// Is told of every delivery that has ended, after its answer went to the broker: for metrics and
    /// alerts of your own, and as the signal to wait for in tests. Runs on the async threads; keep it
    /// short. The last one given counts.
    pub fn observe(mut self, observer: impl Fn(&Ended<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(mut self) -> Result<Inbox<C>, BuildError> {
        check_name("consumer", &self.consumer)?;
        self.name_generation()?;
        check_name("queue", &self.queue)?;
        self.settings.check(self.db.settings())?;
        if self.handlers.is_empty() {
            return Err(BuildError::NoHandlers);
        }
        let mut by_kind = HashMap::new();
        for (kind, route) in self.handlers.drain(..) {
            check_name("kind", kind)?;
            if self.generation > 1 && route.on_replay() == OnReplay::SideEffects {
                return Err(BuildError::NotReplaySafe { kind, generation: self.generation });
            }
            if by_kind.insert(kind, route).is_some() {
                return Err(BuildError::HandledTwice { kind });
            }
        }
        let keys = std::mem::take(&mut self.keys);
        if let Some(kind) = keys.keys().find(|kind| !by_kind.contains_key(kind.as_str())) {
            return Err(BuildError::KeyWithoutHandler { kind: kind.clone() });
        }
        let generation = self.generation;
        Ok(Inbox::assembled(self, Routes { by_kind, keys, generation }))
    }

    /// From here on everything goes under the name of the generation.
    fn name_generation(&mut self) -> Result<(), BuildError> {
        if self.consumer.contains('#') {
            return Err(BuildError::ReservedName { consumer: self.consumer.clone() });
        }
        if self.generation == 0 {
            return Err(BuildError::BadSetting {
                setting: "generation",
                value: "0".to_owned(),
                remedy: "generations begin at 1; `rebuild::begin` gives out the next",
            });
        }
        self.consumer = crate::rebuild::name(Consumer(&self.consumer), self.generation);
        Ok(check_name("consumer", &self.consumer)?)
    }
}
