use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use db::Db;
use tokio::select;
use tokio::sync::RwLock;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::attempt::{Step, Verdict};
use crate::builder::{InboxConnection, Observer};
use crate::effect::Shared;
use crate::ending::{End, Ending, Reason};
use crate::lot::Alarm;
use crate::parking::{Next, Parking};
use crate::replay::Replayed;
use crate::reply::Replies;
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
    routes: Arc<Routes<C>>,
    /// What its operations do in the world.
    pub(crate) effects: Arc<Shared>,
    pub(crate) observer: Option<Observer>,
    pub(crate) replies: Option<Arc<Replies>>,
}

/// How one attempt under guard went.
enum Tried<C> {
    Step(Step, Option<Ready<C>>),
    /// It may not run, or cannot be decoded.
    Refused(Refusal, Option<Ready<C>>),
}

/// How long a message has been waiting for the database without an answer.
#[derive(Default)]
pub(crate) struct Patience {
    since: Option<Instant>,
    waits: u32,
}

/// From this start on a message is begun with nothing beside it. One without an end can be bad luck, the
/// company of the message that did it.
const SUSPICIOUS: u32 = 2;

impl<C: InboxConnection> Engine<C> {
    pub(crate) fn new(
        consumer: String,
        db: Db<C>,
        settings: Settings,
        routes: Arc<Routes<C>>,
        observer: Option<Observer>,
        replies: Option<Arc<Replies>>,
    ) -> Self {
        Self {
            telemetry: Telemetry::new(&consumer),
            effects: Arc::new(Shared::new(db.clone(), &consumer, settings.effects())),
            consumer,
            db,
            settings,
            stop: CancellationToken::new(),
            alarm: Alarm::default(),
            watch: Watch::default(),
            quarantine: RwLock::default(),
            routes,
            observer,
            replies,
        }
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
        let Unit { task, received, reply, room } = unit;
        let mut end = self.conclude(&task).await;
        let lost = reply.as_ref().map(|reply| &reply.lost);
        if let Some(ending) = self.reply(&task, &end, lost).await {
            end.ending = ending;
        }
        let answered = match reply {
            None => true,
            Some(reply) => self.answer(reply, end.ending).await,
        };
        self.tell(&task, end, answered, received);
        drop(room);
        if task.lease.is_some() && self.settings.ordered {
            // What waited behind it may be due now.
            self.alarm.set(Duration::ZERO);
        }
    }

    async fn conclude(self: &Arc<Self>, task: &Arc<Task<C>>) -> End {
        let mut patience = Patience::default();
        let end = match self.starts(task, &mut patience).await {
            Err(ending) => return End::of(ending, task.attempts()),
            Ok(starts) if starts >= self.settings.crash_limit => {
                let detail = format!("begun {starts} times without ever coming to an end");
                let parking = Parking::for_review(Reason::Crashed, detail, task.attempts());
                End::of(self.park(task, None, parking, &mut patience).await, task.attempts())
            }
            Ok(starts) => self.work(task, starts + 1 >= SUSPICIOUS, &mut patience).await,
        };
        if matches!(end.ending, Ending::Released | Ending::Unsettled) {
            self.unstart(task).await;
        }
        end
    }

    async fn work(
        self: &Arc<Self>,
        task: &Arc<Task<C>>,
        alone: bool,
        patience: &mut Patience,
    ) -> End {
        let attempts = task.attempts();
        loop {
            let tried = self.guarded(task, alone).await;
            if !matches!(tried, Tried::Step(Step::Wait(_), _)) {
                *patience = Patience::default();
            }
            match tried {
                Tried::Refused(refusal, ready) => {
                    let parking = Parking::for_review(refusal.reason, refusal.detail, attempts);
                    let ending = self.park(task, ready.as_ref(), parking, patience).await;
                    return End::of(ending, attempts);
                }
                Tried::Step(Step::Committed(verdict), _) => return self.committed(task, verdict),
                Tried::Step(Step::Overtaken, _) => return End::of(Ending::Overtaken, attempts),
                Tried::Step(Step::Fault(fault), ready) => {
                    let early_for = task.lease.map_or(Duration::ZERO, |lease| lease.early_for);
                    let parking = self.settings.parking(fault, attempts + 1, early_for);
                    let (attempts, too_late) = (
                        parking.attempts,
                        parking.reason == Reason::Early && parking.next == Next::Review,
                    );
                    let ending = self.park(task, ready.as_ref(), parking, patience).await;
                    let mut end = End::of(ending, attempts);
                    end.again &= !(too_late && ending == Ending::Parked(Reason::Early));
                    return end;
                }
                // A parked one can wait where it is, and keeps no worker from its work.
                Tried::Step(Step::Wait(reason), _) if task.lease.is_some() => {
                    tracing::debug!(consumer = self.consumer, reason, "put a parked message off");
                    return End::of(Ending::Unsettled, attempts);
                }
                Tried::Step(Step::Wait(reason), _) => {
                    if let Some(ending) = self.wait(task, patience, &reason).await {
                        return End::of(ending, attempts);
                    }
                }
            }
        }
    }

    /// One attempt, with nothing beside it if it is suspected of killing its process. The place is given up
    /// before any wait.
    async fn guarded(self: &Arc<Self>, task: &Arc<Task<C>>, alone: bool) -> Tried<C> {
        let (_alone, _shared);
        if alone {
            _alone = self.quarantine.write().await;
        } else {
            _shared = self.quarantine.read().await;
        }
        match self.begin(task).await {
            Ok(true) => {}
            Ok(false) => return Tried::Step(Step::Overtaken, None),
            Err(reason) => return Tried::Step(Step::Wait(reason), None),
        }
        let ready = match self.admitted(task) {
            Ok(ready) => ready,
            Err((refusal, ready)) => return Tried::Refused(refusal, ready),
        };
        let step = self.under_lease(task, self.attempt(&ready, task.attempts() + 1)).await;
        Tried::Step(step, Some(ready))
    }

    /// Decoded, and allowed to run.
    pub(crate) fn admitted(
        &self,
        task: &Arc<Task<C>>,
    ) -> Result<Ready<C>, (Refusal, Option<Ready<C>>)> {
        let job = match self.decoded(task) {
            Ok(job) => job.clone(),
            Err(Refusal { reason, detail }) => {
                return Err((Refusal::new(*reason, detail.clone()), None));
            }
        };
        let ready = Ready { task: task.clone(), job };
        let decided = task.lease.is_some_and(|lease| lease.forced);
        match Replayed::of(&task.incoming) {
            Some(replayed)
                if !decided && !replayed.may_run(Consumer(&self.consumer), ready.job.on_replay) =>
            {
                let detail = format!(
                    "replay {} reached a handler with side effects and was not forced for consumer {}",
                    replayed.id(),
                    self.consumer
                );
                Err((Refusal::new(Reason::ReplayRefused, detail), Some(ready)))
            }
            _ => Ok(ready),
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
            let parked = self.db.call_within(self.settings.handler_deadline, move |conn| {
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
            let reason = format!("cannot park: {error}");
            if let Some(ending) = self.wait(task, patience, &reason).await {
                return ending;
            }
        }
    }

    /// A pause that spends no attempt, keeping the place: while the database is away nobody else needs
    /// it. The ending where there is nothing more to wait for.
    pub(crate) async fn wait(
        &self,
        task: &Task<C>,
        patience: &mut Patience,
        reason: &str,
    ) -> Option<Ending> {
        let message_id = task.message_id();
        let waited = patience.since.get_or_insert_with(Instant::now).elapsed();
        let Some(left) = self.settings.hold.checked_sub(waited).filter(|left| !left.is_zero())
        else {
            tracing::error!(
                consumer = self.consumer,
                message_id,
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
                message_id,
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
