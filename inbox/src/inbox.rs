use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use db::Db;
use tokio::select;
use transport::Subscriber;

use crate::builder::{InboxConnection, Observer};
use crate::effect::{Askers, Reconciler};
use crate::endings::Endings;
use crate::engine::Engine;
use crate::lot::Lot;
use crate::receiving::{Receiving, check_schema};
use crate::reply::Replies;
use crate::route::Routes;
use crate::{Builder, Consumer, Ended, OnReplay, RunError, Settings, telemetry};

/// Receives from one queue and applies each operation once.
///
/// Every delivery ends in exactly one [`Ending`](crate::Ending). It is acknowledged only after the
/// commit that applied it, found it a duplicate or parked it; a crash at any point between makes it
/// come again, and its row decides.
pub struct Inbox<C: InboxConnection> {
    consumer: String,
    db: Db<C>,
    settings: Settings,
    routes: Arc<Routes<C>>,
    observer: Option<Observer>,
    replies: Option<Arc<Replies>>,
    askers: Askers,
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
        let Builder {
            consumer, db, subscriber, queue, settings, observer, replies, askers, ..
        } = builder;
        let routes = Arc::new(routes);
        Self { consumer, db, settings, routes, observer, replies, askers, subscriber, queue }
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
        let engine = self.engine(self.observer.clone());
        let _stop_when_dropped = engine.stop.clone().drop_guard();
        select! {
            biased;
            () = &mut shutdown => return Ok(()),
            checked = check_schema(&engine) => checked?,
        }
        let receiving = Receiving::new(engine.clone(), self.subscriber, &self.queue);
        let lot = Lot::new(engine.clone(), receiving.lanes.clone());
        receiving.workers.spawn(lot.watch());
        receiving.workers.spawn(crate::purge::run(engine.clone()));
        receiving.workers.spawn(crate::watch::run(engine.clone()));
        let reconciler = Reconciler::over(engine.effects.clone(), self.askers);
        receiving.workers.spawn(reconciler.run_until(engine.stop.clone().cancelled_owned()));
        receiving.until(shutdown).await
    }

    /// Receives and applies until there is nothing to do: the queue is empty, everything received has its
    /// answer, and no parked message is due; providers are asked about the effects whose question is due. For
    /// tests of your service, in the place of sleeps. Returns how everything ended. It can be called again, for
    /// what came meanwhile; parked messages whose time has not come are not waited for:
    /// [`pass_time`](crate::testing::pass_time) lets it come.
    ///
    /// Nothing is purged, and the share of duplicates is not watched. What other consumers of the queue have
    /// in hand is theirs. While the broker or the database is unavailable it waits. A handler that fails at
    /// once and for ever keeps it busy until its attempts are spent; what waits for a provider or a person spends
    /// none, and keeps it busy for ever where trying all of it takes longer than
    /// [`backoff_max`](Settings::backoff_max).
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until_idle(&self) -> Result<Endings, RunError> {
        let endings = Arc::new(Mutex::new(Endings::default()));
        let (counting, told) = (endings.clone(), self.observer.clone());
        let engine = self.engine(Some(Arc::new(move |ended: &Ended<'_>| {
            counting.lock().unwrap_or_else(PoisonError::into_inner).count(ended.ending);
            if let Some(observer) = &told {
                observer(ended);
            }
        })));
        let _stop_when_dropped = engine.stop.clone().drop_guard();
        check_schema(&engine).await?;
        let reconciler = Reconciler::over(engine.effects.clone(), self.askers.clone());
        let receiving = Receiving::new(engine, self.subscriber.clone(), &self.queue);
        receiving.until_idle(&reconciler).await?;
        let endings = endings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(endings)
    }

    /// The kinds it has handlers for, sorted, with what a replay may do with each. The same is in the metric
    /// `counterfoil_inbox_handlers`.
    #[must_use]
    pub fn handlers(&self) -> Vec<(&'static str, OnReplay)> {
        self.routes.handlers()
    }

    /// Takes its counters from the recorder that is installed by now.
    fn engine(&self, observer: Option<Observer>) -> Arc<Engine<C>> {
        let (consumer, db, settings) =
            (self.consumer.clone(), self.db.clone(), self.settings.clone());
        let (routes, replies) = (self.routes.clone(), self.replies.clone());
        telemetry::handlers(&consumer, &self.handlers());
        Arc::new(Engine::new(consumer, db, settings, routes, observer, replies))
    }
}

impl<C: InboxConnection> std::fmt::Debug for Inbox<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("consumer", &self.consumer)
            .field("queue", &self.queue)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
