use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use db::CallError;
use tokio::select;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::Consumer;
use crate::backend::InboxBackend;
use crate::builder::InboxConnection;
use crate::engine::Engine;
use crate::lanes::Lanes;
use crate::starts::LEASE;
use crate::store::micros;
use crate::store::retry::Due;
use crate::unit::Unit;

/// Every so many looks what waits behind nothing is made due: a head that went by other means than the
/// inbox's or an operator's command told nobody.
const SWEEP_EVERY: u64 = 64;

/// Rings when a parked message may be due.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    earliest: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Alarm {
    pub(crate) fn set(&self, after: Duration) {
        let Some(at) = Instant::now().checked_add(after) else { return };
        let mut earliest = self.earliest.lock().unwrap_or_else(PoisonError::into_inner);
        if earliest.is_none_or(|known| at < known) {
            *earliest = Some(at);
            drop(earliest);
            self.changed.notify_one();
        }
    }

    /// Waits for the alarm, at most until `latest`.
    async fn wait(&self, latest: Instant) {
        loop {
            let earliest = *self.earliest.lock().unwrap_or_else(PoisonError::into_inner);
            let at = earliest.map_or(latest, |at| at.min(latest));
            select! {
                () = sleep_until(at) => break,
                () = self.changed.notified() => {}
            }
        }
        // What is set from here on is for the next time, and the look comes after.
        *self.earliest.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What a look at the lot brought.
struct Looked {
    found: usize,
    /// Whether there may be more.
    more: bool,
}

/// Tries parked messages again when they are due.
pub(crate) struct Lot<C: InboxConnection> {
    engine: Arc<Engine<C>>,
    lanes: Arc<Lanes<C>>,
    /// One for each message that may be under way at the same time.
    room: Arc<Semaphore>,
    places: u32,
    looks: u64,
}

impl<C: InboxConnection> Lot<C> {
    pub(crate) fn new(engine: Arc<Engine<C>>, lanes: Arc<Lanes<C>>) -> Self {
        let places = u32::try_from(engine.settings.concurrency).unwrap_or(u32::MAX);
        let places = places.saturating_mul(2).min(1000);
        let room = Arc::new(Semaphore::new(places as usize));
        Self { engine, lanes, room, places, looks: 0 }
    }

    /// Until the engine is told to stop.
    pub(crate) async fn watch(mut self) {
        let stop = self.engine.stop.clone();
        let working = async {
            let mut failures = 0;
            loop {
                match self.look().await {
                    // As many as there was room for.
                    Ok(Looked { more: true, .. }) => failures = 0,
                    Ok(Looked { more: false, .. }) => {
                        failures = 0;
                        let next = Instant::now() + self.engine.settings.retry_poll;
                        self.engine.alarm.wait(next).await;
                    }
                    Err(reason) => {
                        failures += 1;
                        let pause = self.engine.settings.reconnect_backoff().pause(failures);
                        if failures.is_power_of_two() {
                            tracing::warn!(
                                consumer = self.engine.consumer,
                                reason,
                                ?pause,
                                "cannot look after parked messages"
                            );
                        }
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        };
        select! {
            biased;
            () = stop.cancelled() => {}
            () = working => {}
        }
    }

    /// Tries what is due until nothing is, and waits until nothing is under way; whether anything was.
    pub(crate) async fn clear(&mut self) -> Result<bool, String> {
        let mut any = false;
        loop {
            let found = self.look().await?.found;
            drop(self.room.acquire_many(self.places).await);
            if found == 0 {
                return Ok(any);
            }
            any = true;
        }
    }

    /// Hands on what is due.
    async fn look(&mut self) -> Result<Looked, String> {
        let nothing = Looked { found: 0, more: false };
        let Ok(permit) = self.room.clone().acquire_owned().await else { return Ok(nothing) };
        drop(permit);
        // Not more than there is room for: a lease runs from the moment it is taken.
        let limit = self.room.available_permits();
        let sweep = self.looks.is_multiple_of(SWEEP_EVERY);
        self.looks += 1;
        let engine = self.engine.clone();
        let taken =
            self.engine.db.call_within(self.engine.settings.handler_deadline, move |conn| {
                conn.write(|tx| {
                    // It has waited for the lock, and nobody waits for it any more: what it took would be
                    // nobody's until the lease ends.
                    if engine.stop.is_cancelled() {
                        return Ok(Vec::new());
                    }
                    let consumer = Consumer(&engine.consumer);
                    if sweep && engine.settings.ordered {
                        C::Backend::promote_all(tx, consumer, engine.settings.skip_reviewed)?;
                    } else if sweep {
                        C::Backend::disband(tx, consumer)?;
                    }
                    C::Backend::take_due(
                        tx,
                        consumer,
                        micros(LEASE),
                        i64::try_from(limit).unwrap_or(i64::MAX),
                    )
                })
            });
        let mut due: Vec<Due> =
            taken.await.map_err(|error: CallError<diesel::result::Error>| error.to_string())?;
        let looked = Looked { found: due.len(), more: due.len() >= limit };
        due.sort_by_key(|due| due.lease.id);
        for due in due {
            let permit = self.room.clone().acquire_owned().await.ok();
            let mut unit = Unit::due(due);
            unit.room = permit;
            self.lanes.hand_on(&self.engine, unit).await;
        }
        Ok(looked)
    }
}
