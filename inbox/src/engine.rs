use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use db::Db;
use tokio::select;
use tokio::sync::RwLock;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::attempt::{Step, Verdict};
use crate::builder::{InboxConnection, Observer};
use crate::ending::{End, Ended, Ending, Reason};
use crate::lot::Alarm;
use crate::parking::{Next, Parking};
use crate::replay::Replayed;
use crate::route::{Job, Refusal, Routes};
use crate::telemetry::Telemetry;
use crate::unit::{Ready, Task, Unit};
use crate::watch::Watch;
use crate::{Consumer, Settings};

/// Brings each message to its ending.
pub(crate) struct Engine<C: InboxConnection> {
    pub(crate) consumer: String,
    pub(crate) db: Db<C>,
    pub(crate) settings: Settings,
    pub(crate) telemetry: Telemetry,
    pub(crate) stop: CancellationToken,
    /// Rings when a parked message may be due earlier than the next look at the lot.
    pub(crate) alarm: Alarm,
    pub(crate) watch: Watch,
    /// Held shared by everything at work, alone by what is suspected of killing its process.
    pub(crate) quarantine: RwLock<()>,
    routes: Routes<C>,
    observer: Option<Observer>,
}

/// How long a message has been waiting for the database without an answer.
#[derive(Default)]
pub(crate) struct Patience {
    since: Option<Instant>,
    waits: u32,
}

/// Starts without an end after which a message is begun with nothing beside it. One can be bad luck,
/// the company of the message that did it.
const SUSPICIOUS: u32 = 2;

impl<C: InboxConnection> Engine<C> {
    pub(crate) fn new(
        consumer: String,
        db: Db<C>,
        settings: Settings,
        routes: Routes<C>,
        observer: Option<Observer>,
    ) -> Self {
        Self {
            telemetry: Telemetry::new(&consumer),
            consumer,
            db,
            settings,
            stop: CancellationToken::new(),
            alarm: Alarm::default(),
            watch: Watch::default(),
            quarantine: RwLock::default(),
            routes,
            observer,
        }
    }

    /// Takes its counters from the recorder that is installed by now.
    pub(crate) fn started(mut self) -> Self {
        self.telemetry = Telemetry::new(&self.consumer);
        self
    }

    /// Key functions and `Deserialize` are the user's code and can panic on one message.
    pub(crate) fn decoded<'a>(&self, task: &'a Task<C>) -> &'a Result<Arc<Job<C>>, Refusal> {
        task.decoded(|| {
            catch_unwind(AssertUnwindSafe(|| self.routes.job(&task.incoming))).unwrap_or_else(
                |panic| {
                    self.telemetry.panics.increment(1);
                    let detail = format!("decoding it panicked: {}", panic_text(&*panic));
                    Err(Refusal::new(Reason::Undecodable, detail))
                },
            )
        })
    }

    /// From receipt to answer.
    pub(crate) async fn settle(self: &Arc<Self>, unit: Unit<C>) {
        if unit.is_lost() {
            return;
        }
        let task = unit.task.clone();
        let end = self.conclude(&task).await;
        let answered = match unit.reply {
            None => true,
            Some(reply) => {
                let answered = match end.ending {
                    Ending::Unsettled => reply.acker.requeue().await,
                    // Unanswered, it goes back with the subscription: in order with what was not begun.
                    Ending::Released => Ok(()),
                    Ending::Applied
                    | Ending::Stale
                    | Ending::Duplicate
                    | Ending::Parked(_)
                    | Ending::Overtaken => reply.acker.ack().await,
                };
                if end.ending != Ending::Released {
                    reply.ticket.answered();
                }
                if let Err(error) = &answered {
                    self.telemetry.answers_lost.increment(1);
                    tracing::debug!(consumer = self.consumer, reason = %error, "the answer was lost");
                }
                answered.is_ok()
            }
        };
        self.tell(&task, end, answered, unit.received);
    }

    /// Counts an ending and tells the observer.
    pub(crate) fn tell(&self, task: &Task<C>, end: End, answered: bool, received: Instant) {
        let retried = task.lease.is_some();
        self.telemetry.ended(end, retried, received.elapsed());
        self.watch.ended(end.ending, end.duplicate);
        self.warn_beyond_window(&task.incoming, end.ending);
        if let Some(observer) = &self.observer {
            let job = self.decoded(task).as_ref();
            observer(&Ended {
                message_id: task.incoming.message_id.as_deref(),
                kind: task.incoming.kind.as_deref(),
                operation: job.ok().map(|job| &job.operation),
                ending: end.ending,
                duplicate: end.duplicate,
                attempts: end.attempts,
                retried,
                answered,
            });
        }
    }

    async fn conclude(self: &Arc<Self>, task: &Arc<Task<C>>) -> End {
        let mut patience = Patience::default();
        let starts = match self.start(task, &mut patience).await {
            Ok(starts) => starts,
            Err(ending) => return End::of(ending, task.attempts()),
        };
        let end = if starts > self.settings.crash_limit {
            let detail = format!("begun {} times without ever coming to an end", starts - 1);
            let parking = Parking::for_review(Reason::Crashed, detail, task.attempts());
            End::of(self.park(task, None, parking, &mut patience).await, task.attempts())
        } else if starts >= SUSPICIOUS {
            let _alone = self.quarantine.write().await;
            self.work(task, &mut patience).await
        } else {
            let _shared = self.quarantine.read().await;
            self.work(task, &mut patience).await
        };
        if matches!(end.ending, Ending::Released | Ending::Unsettled) {
            self.unstart(task).await;
        }
        end
    }

    async fn work(self: &Arc<Self>, task: &Arc<Task<C>>, patience: &mut Patience) -> End {
        let mut attempts = task.attempts();
        let ready = match self.admitted(task) {
            Ok(ready) => ready,
            Err(refusal) => {
                let parking = Parking::for_review(refusal.reason, refusal.detail, attempts);
                return End::of(self.park(task, None, parking, patience).await, attempts);
            }
        };
        loop {
            let step = self.attempt(&ready, attempts + 1).await;
            if !matches!(step, Step::Wait(_)) {
                *patience = Patience::default();
            }
            match step {
                Step::Committed(verdict) => {
                    return self.committed(task, verdict);
                }
                Step::Overtaken => return End::of(Ending::Overtaken, attempts),
                Step::Fault(fault) => {
                    let age = task.lease.map_or_else(Default::default, |lease| lease.age);
                    let parking = self.settings.parking(fault, attempts + 1, age);
                    attempts = parking.attempts;
                    let ending = self.park(task, Some(&ready), parking, patience).await;
                    return End::of(ending, attempts);
                }
                Step::Wait(reason) => {
                    if let Some(ending) = self.wait(patience, &reason).await {
                        return End::of(ending, attempts);
                    }
                }
            }
        }
    }

    /// Decoded, and allowed to run.
    pub(crate) fn admitted(&self, task: &Arc<Task<C>>) -> Result<Ready<C>, Refusal> {
        let job = match self.decoded(task) {
            Ok(job) => job.clone(),
            Err(Refusal { reason, detail }) => return Err(Refusal::new(*reason, detail.clone())),
        };
        // Nothing but an operator's decision makes a refused one due again.
        let decided = task.lease.is_some_and(|lease| lease.reason == Reason::ReplayRefused);
        match Replayed::of(&task.incoming) {
            Some(replayed)
                if !decided && !replayed.may_run(Consumer(&self.consumer), job.on_replay) =>
            {
                let detail = format!(
                    "replay {} reached a handler with side effects and was not forced for consumer {}",
                    replayed.id(),
                    self.consumer
                );
                Err(Refusal::new(Reason::ReplayRefused, detail))
            }
            _ => Ok(Ready { task: task.clone(), job }),
        }
    }

    pub(crate) fn committed(&self, task: &Task<C>, verdict: Verdict) -> End {
        let attempts = task.attempts();
        match verdict {
            Verdict::Applied => End::of(Ending::Applied, attempts + 1),
            Verdict::Stale => End::of(Ending::Stale, attempts + 1),
            Verdict::Duplicate(kind) => {
                End { duplicate: Some(kind), ..End::of(Ending::Duplicate, attempts) }
            }
            Verdict::Parked { id, reason } => {
                self.parked(task, reason, id);
                End::of(Ending::Parked(reason), attempts)
            }
        }
    }

    async fn park(
        self: &Arc<Self>,
        task: &Arc<Task<C>>,
        ready: Option<&Ready<C>>,
        parking: Parking,
        patience: &mut Patience,
    ) -> Ending {
        let parking = Arc::new(parking);
        loop {
            let (engine, message, words) = (self.clone(), task.clone(), parking.clone());
            let ready = ready.cloned();
            let parked = self.db.call(move |conn| {
                conn.write(|tx| engine.park_task(tx, &message, ready.as_ref(), &words))
            });
            let error = match parked.await {
                Ok(Some(verdict)) => {
                    if let Next::Retry(after) = parking.next {
                        self.alarm.set(after);
                    }
                    return self.committed(task, verdict).ending;
                }
                Ok(None) => return Ending::Overtaken,
                Err(error) => error,
            };
            if let Some(ending) = self.wait(patience, &format!("cannot park: {error}")).await {
                return ending;
            }
        }
    }

    fn parked(&self, task: &Task<C>, reason: Reason, id: i64) {
        let message_id = task.incoming.message_id.as_deref();
        match reason {
            // The usual course of things; what it comes to is said then.
            Reason::Failed | Reason::Early | Reason::Behind => {
                tracing::debug!(consumer = self.consumer, parked = id, %reason, message_id, "parked a message");
            }
            _ => {
                tracing::warn!(consumer = self.consumer, parked = id, %reason, message_id, "parked a message");
            }
        }
    }

    /// A pause that spends no attempt, keeping the place: while the database is away nobody else needs
    /// it. The ending where there is nothing more to wait for.
    pub(crate) async fn wait(&self, patience: &mut Patience, reason: &str) -> Option<Ending> {
        let waited = patience.since.get_or_insert_with(Instant::now).elapsed();
        let Some(left) = self.settings.hold.checked_sub(waited).filter(|left| !left.is_zero())
        else {
            tracing::error!(
                consumer = self.consumer,
                reason,
                ?waited,
                "gave a message back unsettled"
            );
            return Some(Ending::Unsettled);
        };
        self.telemetry.waits.increment(1);
        patience.waits = patience.waits.saturating_add(1);
        let pause = self.settings.reconnect_backoff().pause(patience.waits).min(left);
        // Rarer as it lasts.
        if patience.waits.is_power_of_two() {
            tracing::warn!(
                consumer = self.consumer,
                reason,
                ?pause,
                "waiting with a message in hand"
            );
        }
        select! {
            biased;
            () = self.stop.cancelled() => Some(Ending::Released),
            () = sleep(pause) => None,
        }
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
