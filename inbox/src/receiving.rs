use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use db::{CallError, Class, classify};
use migrations::SchemaError;
use tokio::select;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{Delivery, Subscriber, Subscription, Unavailable};

use crate::RunError;
use crate::builder::InboxConnection;
use crate::engine::Engine;
use crate::lanes::Lanes;
use crate::outstanding::Outstanding;
use crate::unit::Unit;

pub(crate) async fn check_schema<C: InboxConnection>(engine: &Engine<C>) -> Result<(), RunError> {
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

/// Hands what comes from a queue to the workers, over one subscription after the other.
pub(crate) struct Receiving<C: InboxConnection> {
    pub(crate) engine: Arc<Engine<C>>,
    pub(crate) lanes: Arc<Lanes<C>>,
    pub(crate) workers: TaskTracker,
    subscriber: Arc<dyn Subscriber>,
    queue: String,
    /// To subscribe or to receive, in a row.
    failures: u32,
    subscribed_before: bool,
}

impl<C: InboxConnection> Receiving<C> {
    /// Starts the workers.
    pub(crate) fn new(
        engine: Arc<Engine<C>>,
        subscriber: Arc<dyn Subscriber>,
        queue: &str,
    ) -> Self {
        let workers = TaskTracker::new();
        let lanes = Lanes::open(&engine, &workers);
        let queue = queue.to_owned();
        Self { engine, lanes, workers, subscriber, queue, failures: 0, subscribed_before: false }
    }

    /// Until `shutdown`, and until everything begun by then has its answer.
    pub(crate) async fn until(
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
            self.ended(subscription, &lost);
            select! {
                biased;
                () = &mut shutdown => break None,
                () = self.pause() => {}
            }
        };
        self.finish(subscription).await;
        Ok(())
    }

    /// Lets the workers finish what they have begun.
    pub(crate) async fn finish(self, subscription: Option<Box<dyn Subscription>>) {
        self.engine.stop.cancel();
        self.workers.close();
        self.workers.wait().await;
        // Only now: an answer is worth nothing on a subscription that has ended.
        drop(subscription);
    }

    /// Gives up a subscription before the pause: what it holds unanswered belongs back in the queue.
    pub(crate) fn ended(&self, subscription: Box<dyn Subscription>, lost: &Unavailable) {
        self.engine.telemetry.subscriptions_lost.increment(1);
        tracing::warn!(consumer = self.engine.consumer, reason = %lost, "the subscription ended");
        drop(subscription);
    }

    pub(crate) async fn subscribe(&mut self) -> Result<Box<dyn Subscription>, RunError> {
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

    pub(crate) async fn pause(&mut self) {
        self.failures = self.failures.saturating_add(1);
        sleep(self.engine.settings.reconnect_backoff().pause(self.failures)).await;
    }

    /// Hands deliveries to the workers until the subscription ends.
    async fn receive(&mut self, subscription: &mut dyn Subscription) -> Unavailable {
        let (among, lost) = (Arc::new(Outstanding::default()), CancellationToken::new());
        let error = loop {
            let received = select! {
                biased;
                () = lost.cancelled() => break given_up(),
                received = subscription.receive() => received,
            };
            match received {
                Ok(delivery) => self.hand_on(delivery, &among, &lost).await,
                Err(error) => break error,
            }
        };
        lost.cancel();
        error
    }

    pub(crate) async fn hand_on(
        &mut self,
        delivery: Delivery,
        among: &Arc<Outstanding>,
        lost: &CancellationToken,
    ) {
        // Not at subscribing: a queue that lets us subscribe and ends us at once would otherwise be asked
        // without a pause.
        self.failures = 0;
        let unit = Unit::delivered(delivery, among.ticket(), lost.clone());
        self.lanes.hand_on(&self.engine, unit).await;
    }
}

/// An inbox itself ended the subscription.
pub(crate) fn given_up() -> Unavailable {
    let source = "a message could not be settled, and nothing may overtake it".into();
    Unavailable::Lost { source }
}
