use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use db::{CallError, Db};
use message::OperationKey;
use tokio::select;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use transport::Delivery;

use crate::attempt::{Step, Verdict};
use crate::backend::InboxBackend;
use crate::builder::{InboxConnection, Observer};
use crate::ending::{Ended, Ending, Reason};
use crate::incoming::Incoming;
use crate::park::NewParked;
use crate::route::{Job, Refusal, Routes};
use crate::slot::Slot;
use crate::telemetry::Telemetry;
use crate::{Consumer, Settings};

/// Brings each delivery to its ending.
pub(crate) struct Engine<C: InboxConnection> {
    pub(crate) consumer: String,
    pub(crate) db: Db<C>,
    pub(crate) settings: Settings,
    pub(crate) telemetry: Telemetry,
    pub(crate) stop: CancellationToken,
    routes: Routes<C>,
    observer: Option<Observer>,
}

/// How long a delivery has been waiting for the database without an answer.
#[derive(Default)]
struct Patience {
    since: Option<Instant>,
    waits: u32,
}

impl<C: InboxConnection> Engine<C> {
    pub(crate) fn new(
        consumer: String,
        db: Db<C>,
        settings: Settings,
        routes: Routes<C>,
        observer: Option<Observer>,
    ) -> Self {
        let telemetry = Telemetry::new(&consumer);
        Self { consumer, db, settings, telemetry, stop: CancellationToken::new(), routes, observer }
    }

    /// Takes its counters from the recorder that is installed by now.
    pub(crate) fn started(mut self) -> Self {
        self.telemetry = Telemetry::new(&self.consumer);
        self
    }

    /// From receipt to answer.
    pub(crate) async fn settle(self: Arc<Self>, delivery: Delivery, mut slot: Slot) {
        let started = Instant::now();
        let (incoming, acker) = Incoming::split(delivery);
        let incoming = Arc::new(incoming);
        let mut attempts = 0;
        let job = self.job(&incoming).map(Arc::new);
        let ending = match &job {
            Ok(job) => self.apply(&incoming, job, &mut attempts, &mut slot).await,
            Err(refusal) => {
                let mut patience = Patience::default();
                self.park(&incoming, None, refusal.reason, &refusal.detail, 0, &mut patience).await
            }
        };
        let answered = match ending {
            Ending::Applied | Ending::Duplicate | Ending::Parked(_) => acker.ack().await,
            Ending::Unsettled => acker.requeue().await,
            // Unanswered, it goes back with the subscription: in order with what was not begun.
            Ending::Released => Ok(()),
        };
        if let Err(error) = &answered {
            self.telemetry.answers_lost.increment(1);
            tracing::debug!(consumer = self.consumer, reason = %error, "the answer was lost");
        }
        self.telemetry.ended(ending, started.elapsed());
        if let Some(observer) = &self.observer {
            observer(&Ended {
                message_id: incoming.message_id.as_deref(),
                kind: incoming.kind.as_deref(),
                operation: job.as_ref().ok().map(|job| &job.operation),
                ending,
                attempts,
                answered: answered.is_ok(),
            });
        }
        // Held until here: shutdown waits for the answer, and so does the next delivery.
        drop(slot);
    }

    /// Key functions and `Deserialize` are the user's code and can panic on one message.
    fn job(&self, incoming: &Incoming) -> Result<Job<C>, Refusal> {
        catch_unwind(AssertUnwindSafe(|| self.routes.job(incoming))).unwrap_or_else(|panic| {
            self.telemetry.panics.increment(1);
            let detail = format!("decoding it panicked: {}", panic_text(&*panic));
            Err(Refusal::new(Reason::Undecodable, detail))
        })
    }

    async fn apply(
        self: &Arc<Self>,
        incoming: &Arc<Incoming>,
        job: &Arc<Job<C>>,
        attempts: &mut u32,
        slot: &mut Slot,
    ) -> Ending {
        let mut patience = Patience::default();
        let operation = Some(&job.operation);
        loop {
            let attempt = *attempts + 1;
            let step = self.attempt(incoming, job, attempt).await;
            if !matches!(step, Step::Wait(_)) {
                patience = Patience::default();
            }
            match step {
                Step::Committed(Verdict::Applied) => {
                    *attempts = attempt;
                    return Ending::Applied;
                }
                Step::Committed(Verdict::Duplicate) => return Ending::Duplicate,
                Step::Committed(Verdict::Conflict { parked }) => {
                    self.parked(incoming, Reason::Conflict, parked);
                    return Ending::Parked(Reason::Conflict);
                }
                Step::Reject(reason) => {
                    *attempts = attempt;
                    return self
                        .park(
                            incoming,
                            operation,
                            Reason::Rejected,
                            &reason,
                            attempt,
                            &mut patience,
                        )
                        .await;
                }
                Step::Fail(detail) => {
                    *attempts = attempt;
                    if attempt >= self.settings.max_attempts {
                        return self
                            .park(
                                incoming,
                                operation,
                                Reason::Exhausted,
                                &detail,
                                attempt,
                                &mut patience,
                            )
                            .await;
                    }
                    self.telemetry.attempts_failed.increment(1);
                    let pause = self.settings.attempts_backoff().pause(attempt);
                    tracing::debug!(consumer = self.consumer, attempt, ?pause, "an attempt failed");
                    if !slot.lend(pause, &self.stop).await {
                        return Ending::Released;
                    }
                }
                Step::Wait(reason) => {
                    if let Some(ending) = self.wait(&mut patience, &reason).await {
                        return ending;
                    }
                }
            }
        }
    }

    async fn park(
        self: &Arc<Self>,
        incoming: &Arc<Incoming>,
        operation: Option<&OperationKey>,
        reason: Reason,
        detail: &str,
        attempts: u32,
        patience: &mut Patience,
    ) -> Ending {
        loop {
            let (engine, message, detail) = (self.clone(), incoming.clone(), detail.to_owned());
            let operation = operation.cloned();
            let parked = self.db.call(move |conn| {
                let consumer = Consumer(&engine.consumer);
                let row = NewParked::new(
                    consumer,
                    &message,
                    operation.as_ref(),
                    reason,
                    &detail,
                    attempts,
                );
                conn.write(|tx| C::Backend::park(tx, &row))
            });
            let error: CallError<diesel::result::Error> = match parked.await {
                Ok(id) => {
                    self.parked(incoming, reason, id);
                    return Ending::Parked(reason);
                }
                Err(error) => error,
            };
            if let Some(ending) = self.wait(patience, &format!("cannot park: {error}")).await {
                return ending;
            }
        }
    }

    fn parked(&self, incoming: &Incoming, reason: Reason, id: i64) {
        let message_id = incoming.message_id.as_deref();
        tracing::warn!(consumer = self.consumer, parked = id, %reason, message_id, "parked a message");
    }

    /// A pause that spends no attempt, keeping the slot: while the database is away nobody else needs
    /// it. The ending where there is nothing more to wait for.
    async fn wait(&self, patience: &mut Patience, reason: &str) -> Option<Ending> {
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
