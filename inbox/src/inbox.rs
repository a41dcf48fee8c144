use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use db::{CallError, Class, Db, classify};
use migrations::SchemaError;
use tokio::select;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{Subscriber, Subscription, Unavailable};

use crate::builder::InboxConnection;
use crate::engine::Engine;
use crate::lanes::Lanes;
use crate::lot::Lot;
use crate::outstanding::Outstanding;
use crate::route::Routes;
use crate::unit::Unit;
use crate::{Builder, Consumer, RunError, Settings};

/// Receives from one queue and applies each operation once.
///
/// Every delivery ends in exactly one [`Ending`](crate::Ending). It is acknowledged only after the
/// commit that applied it, found it a duplicate or parked it; a crash at any point between makes it
/// come again, and its row decides.
pub struct Inbox<C: InboxConnection> {
    engine: Engine<C>,
    subscriber: Arc<dyn Subscriber>,
    queue: String,
}

impl<C: InboxConnection> Inbox<C> {
    /// Begins to assemble an inbox. The pool must hold at least as many connections as deliveries are
    /// applied at once ([`Settings::concurrency`], default 4).
    #[expect(
        clippy::new_ret_no_self,
        reason = "the builder is the only way to one, and this is where people look"
    )]
    pub fn new(
        consumer: Consumer<'_>,
        db: Db<C>,
        subscriber: Arc<dyn Subscriber>,
        queue: &str,
    ) -> Builder<C> {
        Builder::new(consumer, db, subscriber, queue)
    }

    pub(crate) fn assembled(builder: Builder<C>, routes: Routes<C>) -> Self {
        let Builder { consumer, db, subscriber, queue, settings, observer, .. } = builder;
        Self { engine: Engine::new(consumer, db, settings, routes, observer), subscriber, queue }
    }

    /// Receives and applies until `shutdown` completes; then receives no more, finishes the handlers
    /// that are running, answers their deliveries and returns. Deliveries that have not begun go back to
    /// the queue, parked messages stay where they are.
    ///
    /// While the broker is unavailable it waits and subscribes anew, with growing pauses.
    ///
    /// A handler that hangs in its own code is given up at its deadline, here too, and keeps its thread: a
    /// tokio runtime that is dropped waits for it. Where that can happen leave `main` by
    /// [`std::process::exit`], or end the runtime with its `shutdown_background`.
    ///
    /// Dropping the future instead stops less politely: running handlers finish unanswered, so their
    /// messages come again, as duplicates.
    ///
    /// # Errors
    /// [`RunError`]: the schema is not current, or the first connection to the broker shows that its
    /// settings or rights cannot work. Nothing was received then.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let mut shutdown = std::pin::pin!(shutdown);
        let engine = Arc::new(self.engine.started());
        let _stop_when_dropped = engine.stop.clone().drop_guard();
        select! {
            biased;
            () = &mut shutdown => return Ok(()),
            checked = check_schema(&engine) => checked?,
        }
        let workers = TaskTracker::new();
        let lanes = Lanes::open(&engine, &workers);
        workers.spawn(Lot::new(engine.clone(), lanes.clone()).watch());
        workers.spawn(crate::purge::run(engine.clone()));
        workers.spawn(crate::watch::run(engine.clone()));
        let receiving = Receiving {
            lanes,
            workers,
            engine,
            subscriber: self.subscriber,
            queue: self.queue,
            failures: 0,
            subscribed_before: false,
        };
        receiving.until(shutdown).await
    }
}

async fn check_schema<C: InboxConnection>(engine: &Engine<C>) -> Result<(), RunError> {
    let mut failures = 0;
    loop {
        let reason = match engine.db.call(|conn| migrations::check(conn)).await {
            Ok(()) => return Ok(()),
            Err(CallError::Cancelled) => return Err(RunError::Cancelled),
            Err(CallError::Work(SchemaError::Database(error)))
                if matches!(classify(&error), Class::Unavailable | Class::Contention) =>
            {
                error.to_string()
            }
            Err(CallError::Work(error)) => return Err(error.into()),
            Err(
                error @ (CallError::PoolExhausted { .. }
                | CallError::TimedOut { .. }
                | CallError::Panicked { .. }
                | CallError::Begin(_)
                | CallError::Commit(_)),
            ) => error.to_string(),
        };
        failures += 1;
        let pause = engine.settings.reconnect_backoff().pause(failures);
        tracing::warn!(consumer = engine.consumer, reason, ?pause, "cannot check the schema yet");
        sleep(pause).await;
    }
}

struct Receiving<C: InboxConnection> {
    engine: Arc<Engine<C>>,
    subscriber: Arc<dyn Subscriber>,
    queue: String,
    lanes: Arc<Lanes<C>>,
    workers: TaskTracker,
    /// To subscribe or to receive, in a row.
    failures: u32,
    subscribed_before: bool,
}

impl<C: InboxConnection> Receiving<C> {
    async fn until(
        mut self,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), RunError> {
        let subscription = loop {
            let mut subscription = select! {
                biased;
                () = &mut shutdown => break None,
                subscribed = self.subscribe() => subscribed?,
            };
            let lost = select! {
                biased;
                () = &mut shutdown => break Some(subscription),
                lost = self.receive(&mut *subscription) => lost,
            };
            self.engine.telemetry.subscriptions_lost.increment(1);
            tracing::warn!(consumer = self.engine.consumer, reason = %lost, "the subscription ended");
            // Before the pause: what it holds unanswered belongs back in the queue.
            drop(subscription);
            select! {
                biased;
                () = &mut shutdown => break None,
                () = self.pause() => {}
            }
        };
        self.engine.stop.cancel();
        self.workers.close();
        self.workers.wait().await;
        // Only now: an answer is worth nothing on a subscription that has ended.
        drop(subscription);
        Ok(())
    }

    async fn subscribe(&mut self) -> Result<Box<dyn Subscription>, RunError> {
        let prefetch = self.engine.settings.effective_prefetch();
        loop {
            match self.subscriber.subscribe(&self.queue, prefetch).await {
                Ok(subscription) => {
                    self.subscribed_before = true;
                    self.engine.telemetry.subscriptions.increment(1);
                    tracing::info!(
                        consumer = self.engine.consumer,
                        queue = self.queue,
                        prefetch,
                        "subscribed"
                    );
                    return Ok(subscription);
                }
                Err(error) if error.needs_operator() && !self.subscribed_before => {
                    return Err(error.into());
                }
                Err(error) => {
                    self.engine.telemetry.subscriptions_lost.increment(1);
                    tracing::warn!(consumer = self.engine.consumer, reason = %error, "cannot subscribe yet");
                    self.pause().await;
                }
            }
        }
    }

    async fn pause(&mut self) {
        self.failures = self.failures.saturating_add(1);
        sleep(self.engine.settings.reconnect_backoff().pause(self.failures)).await;
    }

    /// Hands deliveries to the workers until the subscription ends.
    async fn receive(&mut self, subscription: &mut dyn Subscription) -> Unavailable {
        let (among, lost) = (Arc::new(Outstanding::default()), CancellationToken::new());
        let error = loop {
            let received = select! {
                biased;
                () = lost.cancelled() => {
                    let source = "a message could not be settled, and nothing may overtake it".into();
                    break Unavailable::Lost { source };
                }
                received = subscription.receive() => received,
            };
            match received {
                Ok(delivery) => {
                    // Not at subscribing: a queue that lets us subscribe and ends us at once would
                    // otherwise be asked without a pause.
                    self.failures = 0;
                    let unit = Unit::delivered(delivery, among.ticket(), lost.clone());
                    self.lanes.hand_on(&self.engine, unit).await;
                }
                Err(error) => break error,
            }
        };
        lost.cancel();
        error
    }
}

impl<C: InboxConnection> std::fmt::Debug for Inbox<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let settings: &Settings = &self.engine.settings;
        f.debug_struct("Inbox")
            .field("consumer", &self.engine.consumer)
            .field("queue", &self.queue)
            .field("settings", settings)
            .finish_non_exhaustive()
    }
}
