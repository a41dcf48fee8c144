//! One term as holder of the cursor: read, publish, advance, renew, until something ends it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use db::{CallError, Db};
use diesel::result::Error;
use outbox::admin::{AdminStore, Purged};
use outbox::reader::{Advance, Chunk, Hold, HoldReason, Lease, ReadLimit, Settled};
use tokio::time::{Instant as Timer, sleep_until};
use transport::{Health, Publisher};

use crate::breaker::PROBE_ROWS;
use crate::engine::is_fatal;
use crate::flow::{Answered, DbResult, Flow, InFlight, Known, answered, done};
use crate::holds::{Look, Round, Tried, look};
use crate::lanes::{LaneEnd, Lanes, Rules};
use crate::settings::Settings;
use crate::settle::{outcome, unpublishable};
use crate::shutdown::Shutdown;
use crate::status::{Circuit, Phase};
use crate::telemetry::Counters;
use crate::work::{fenced, load};

/// Every way a session can end.
pub(crate) enum SessionEnd {
    /// Asked to stop; everything in flight is settled.
    Shutdown,
    /// Asked to stop, and the deadline passed before everything was settled.
    ShutdownForced,
    /// There was no more to read (only when asked to drain).
    Drained,
    /// Nothing more is handed on for the moment (only when asked to drain).
    CircuitOpen(Circuit),
    /// A write found the epoch raised or another timeline: the lease is not ours any more.
    LeaseLost,
    /// By our own clock the lease may have ended; nothing was published after that.
    LeaseExpired,
    /// Messages were in flight and none was settled for too long.
    Stalled(Duration),
    /// The broker cannot be used.
    Broker(transport::Unavailable),
    /// The database cannot be used, or failed.
    Database(CallError<Error>),
}

/// Whether a session goes on waiting for new rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    Shutdown,
    Drained,
}

pub(crate) struct Session<C: AdminStore> {
    pub(crate) db: Db<C>,
    pub(crate) publisher: Arc<dyn Publisher>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) counters: Counters,
    pub(crate) lease: Lease,
    pub(crate) rules: Rules,
    pub(crate) lanes: Lanes,
    pub(crate) until: Until,
    pub(crate) flow: Flow,
    /// How far the purge has come, in this session and the ones before it.
    pub(crate) purged_to: Arc<AtomicI64>,
}

/// How often the loop looks up when nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// How often what is held is loaded again while there is some: an operator may have decided.
const RELOAD: Duration = Duration::from_secs(5);
/// How often the purge begins at the oldest message again.
const PURGE_ROUND: Duration = Duration::from_secs(3_600);
/// How often the purge looks for more when it was through.
const PURGE_PAUSE: Duration = Duration::from_secs(60);

impl<C: AdminStore> Session<C> {
    /// Works until something ends the session. On return nothing of it runs on.
    pub(crate) async fn run(
        &mut self,
        shutdown: &mut Shutdown<impl Future<Output = ()>>,
    ) -> SessionEnd {
        let mut give_up = Timer::now();
        loop {
            let may = self.start_what_can_start();
            self.rules.status.in_flight(self.flow.messages_in_flight());
            if self.flow.idle() && self.flow.renewing.is_none() {
                if self.flow.stopping {
                    return SessionEnd::Shutdown;
                }
                let through = self.flow.exhausted && self.flow.known;
                if self.until == Until::Drained && (through || self.flow.paused) {
                    return SessionEnd::Drained;
                }
                if let (Until::Drained, Some(circuit)) = (self.until, may.open) {
                    return SessionEnd::CircuitOpen(circuit);
                }
            }
            let lease_end = Timer::from_std(self.rules.deadline.ends());
            let flow = &mut self.flow;
            let step = tokio::select! {
                biased;
                () = shutdown.asked(), if !flow.stopping => {
                    flow.stopping = true;
                    self.rules.status.phase(Phase::Stopping);
                    give_up = Timer::now() + self.settings.shutdown_timeout;
                    Ok(())
                }
                () = sleep_until(give_up), if flow.stopping => return SessionEnd::ShutdownForced,
                result = done(&mut flow.advancing) => self.on_advanced(result),
                result = done(&mut flow.renewing) => on_renewed(result),
                result = done(&mut flow.settling) => self.on_settled(result),
                result = done(&mut flow.loading) => self.on_loaded(result),
                result = answered(&mut flow.in_flight), if may.record => self.on_answered(result),
                result = done(&mut flow.retrying) => self.on_retried(result),
                result = done(&mut flow.reading) => self.on_read(result),
                result = done(&mut flow.looking) => self.on_look(result),
                result = done(&mut flow.purging) => self.on_purged(result),
                () = sleep_until(lease_end) => Err(SessionEnd::LeaseExpired),
                () = sleep_until(flow.next_tick) => self.on_tick(),
                () = sleep_until(flow.next_renewal), if flow.renewing.is_none() => Ok(()),
                // Only what could start when its time comes is waited for: a timer in the past would spin.
                () = sleep_until(flow.next_read), if may.read => Ok(()),
                () = sleep_until(flow.next_look), if may.look => Ok(()),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Starts what can, and tells what could when its time comes.
    fn start_what_can_start(&mut self) -> May {
        let now = Timer::now();
        let lease = self.settings.lease;
        if self.flow.renewing.is_none() && now >= self.flow.next_renewal {
            self.flow.next_renewal = now + lease / 3;
            let held = self.lease.clone();
            self.flow.renewing =
                Some(fenced(&self.db, &self.rules.deadline, move |conn| conn.renew(&held)));
        }
        if !self.flow.recording_something() {
            self.start_recording(now);
        }
        let flow = &mut self.flow;
        let record = !flow.recording_something();
        if flow.stopping {
            return May { record, read: false, look: false, open: None };
        }
        let circuit = flow.breaker.circuit(now, flow.held, &self.settings);
        self.rules.status.circuit(circuit);
        let (chunks, rows) = match circuit {
            Circuit::Closed => (self.settings.chunks_in_flight, self.settings.chunk_rows),
            Circuit::HalfOpen => (1, PROBE_ROWS.min(self.settings.chunk_rows)),
            Circuit::OpenRefused | Circuit::OpenHolds => (0, 0),
        };
        let could_read =
            flow.known && !flow.paused && flow.reading.is_none() && flow.in_flight.len() < chunks;
        if could_read && now >= flow.next_read {
            let (db, from) = (self.db.clone(), flow.position.clone());
            let filter = self.lease.filter.clone();
            let limit = ReadLimit { rows, bytes: self.settings.chunk_bytes };
            flow.read_at = now;
            flow.reading = Some(Box::pin(async move {
                db.call_within(lease, move |conn| conn.read(&from, &filter, limit)).await
            }));
        }
        let could_look = flow.known
            && flow.looking.is_none()
            && flow.retrying.is_none()
            && flow.tried.is_none()
            && flow.settling.is_none();
        if could_look && now >= flow.next_look {
            flow.next_look = now + self.settings.poll_holds;
            flow.looking = Some(Box::pin(look(self.db.clone(), self.settings.clone())));
        }
        if let (Some(retention), true) =
            (self.settings.retention, flow.purging.is_none() && now >= flow.next_purge)
        {
            let (from, rows) = (self.purged_to.load(Ordering::Relaxed), self.settings.purge_rows);
            let db = self.db.clone();
            flow.purging = Some(Box::pin(async move {
                db.call_within(lease, move |conn| conn.purge(retention, from, rows)).await
            }));
        }
        May {
            record,
            read: could_read && flow.reading.is_none(),
            look: could_look && flow.looking.is_none(),
            open: (flow.known && chunks == 0).then_some(circuit),
        }
    }

    fn start_recording(&mut self, now: Timer) {
        let flow = &mut self.flow;
        if let Some(Tried { results, keys, .. }) = flow.tried.take() {
            flow.recording = keys;
            flow.next_renewal = now + self.settings.lease / 3;
            let (db, lease) = (self.db.clone(), self.lease.clone());
            let deadline = self.rules.deadline.clone();
            flow.settling = Some(Box::pin(async move {
                let asked = Instant::now();
                let settled =
                    db.call_within(lease.ttl, move |conn| conn.settle(&lease, &results)).await?;
                if matches!(settled, Settled::Done { .. }) {
                    deadline.renewed(asked);
                }
                Ok(settled)
            }));
        } else if !flow.stopping
            && now >= flow.next_load
            && flow.retrying.is_none()
            && (!flow.known || flow.held > 0 || self.rules.held_keys.any())
        {
            flow.next_load = now + RELOAD;
            flow.loading = Some(Box::pin(load(self.db.clone(), self.settings.clone())));
        }
    }

    fn on_read(&mut self, chunk: DbResult<Chunk>) -> Result<(), SessionEnd> {
        let chunk = chunk.map_err(SessionEnd::Database)?;
        let flow = &mut self.flow;
        flow.exhausted = chunk.exhausted;
        // Nothing to hand on: the position holds without being stored, and an idle relay writes
        // nothing. A restart from the stored one reads the same.
        flow.position = chunk.next.clone();
        // Counted from the beginning of the read, which is when it saw what it saw.
        let now = flow.read_at;
        if chunk.entries.is_empty() && chunk.passed_over == 0 {
            flow.empty_reads = flow.empty_reads.saturating_add(1);
            let wait = self.settings.poll_busy.saturating_mul(1 << flow.empty_reads.min(16));
            flow.next_read =
                if chunk.exhausted { now + wait.min(self.settings.poll_idle) } else { now };
            return Ok(());
        }
        flow.empty_reads = 0;
        flow.next_read = if chunk.exhausted { now + self.settings.poll_busy } else { now };
        self.counters.read(chunk.entries.len());
        let (mut holds, mut keys) = (Vec::new(), Vec::new());
        let mut messages = Vec::with_capacity(chunk.entries.len());
        for entry in chunk.entries {
            match unpublishable(&entry, &self.settings) {
                Some(hold) => {
                    // Known before anything later is dispatched. Nobody waits for a delayed one.
                    if let (Some(key), true) =
                        (&hold.ordering_key, hold.reason != HoldReason::Delayed)
                    {
                        self.rules.held_keys.add(key);
                        keys.push(key.clone());
                    }
                    holds.push(hold);
                }
                None => messages.push((entry.seq, entry.message)),
            }
        }
        let count = messages.len();
        let settled = Box::pin(self.lanes.dispatch(messages, false).settled());
        let chunk = InFlight { next: chunk.next, messages: count, holds, keys, settled };
        self.flow.in_flight.push_back(chunk);
        Ok(())
    }

    /// The oldest chunk has its verdicts: move the cursor behind it, and record what was held.
    fn on_answered(&mut self, oldest: Answered) -> Result<(), SessionEnd> {
        let Answered { next, mut holds, mut keys, published } = oldest;
        let published = published.map_err(lane_end)?;
        let batch = outcome(&self.settings, &self.counters, published, |_| 0);
        holds.extend(batch.holds);
        keys.extend(batch.keys);
        self.counters.held(&holds);
        let confirmed = batch.confirmed.len() as u64;
        let flow = &mut self.flow;
        flow.breaker.note(confirmed, batch.refused, &self.settings);
        flow.totals.confirmed += confirmed;
        flow.totals.held += holds.len() as u64;
        let counts =
            |hold: &&Hold| !matches!(hold.reason, HoldReason::Delayed | HoldReason::Behind);
        flow.held += holds.iter().filter(counts).count() as u64;
        flow.recording = keys;
        flow.next_renewal = Timer::now() + self.settings.lease / 3;
        let lease = self.lease.clone();
        flow.advancing = Some(fenced(&self.db, &self.rules.deadline, move |conn| {
            conn.advance(&lease, &next, &holds)
        }));
        Ok(())
    }

    fn on_advanced(&mut self, advanced: DbResult<Advance>) -> Result<(), SessionEnd> {
        on_renewed(advanced)?;
        self.recorded();
        Ok(())
    }

    fn recorded(&mut self) {
        let keys = std::mem::take(&mut self.flow.recording);
        if !keys.is_empty() {
            self.rules.held_keys.recorded(&keys);
            // A dead message that is passed by leaves its key among the held ones.
            self.flow.next_load = self.flow.next_load.min(Timer::now() + TICK);
        }
        self.rules.status.held(self.flow.held);
    }

    fn on_loaded(&mut self, known: DbResult<Known>) -> Result<(), SessionEnd> {
        let Known { keys, held, paused } = known.map_err(SessionEnd::Database)?;
        self.rules.held_keys.replace(keys);
        self.flow.held = held;
        self.flow.known = true;
        self.pause(paused);
        self.rules.status.held(held);
        Ok(())
    }

    fn on_look(&mut self, look: DbResult<Look>) -> Result<(), SessionEnd> {
        let Look { paused, due } = match look {
            Ok(look) => look,
            // Slow, as over the remains of many held messages that vacuum may not clear away yet: what is
            // new goes on.
            Err(error @ CallError::TimedOut { .. }) => {
                tracing::warn!(%error, "held messages could not be looked up; later again");
                self.flow.next_look = Timer::now() + self.settings.lease;
                return Ok(());
            }
            Err(error) => return Err(SessionEnd::Database(error)),
        };
        self.pause(paused);
        if due.is_empty() || self.flow.stopping {
            return Ok(());
        }
        let mut round = Round::of(due, &self.settings);
        let dispatched = self.lanes.dispatch(std::mem::take(&mut round.messages), true);
        self.flow.retrying =
            Some(Box::pin(round.finish(self.settings.clone(), self.counters.clone(), dispatched)));
        Ok(())
    }

    fn on_retried(&mut self, tried: Result<Tried, LaneEnd>) -> Result<(), SessionEnd> {
        let tried = tried.map_err(lane_end)?;
        if tried.confirmed > 0 {
            // The next messages of each key come due at once.
            self.flow.next_look = Timer::now();
            self.flow.held = self.flow.held.saturating_sub(tried.counted);
        }
        self.flow.tried = Some(tried);
        Ok(())
    }

    fn on_settled(&mut self, settled: DbResult<Settled>) -> Result<(), SessionEnd> {
        match settled.map_err(SessionEnd::Database)? {
            Settled::Done { freed } => {
                self.recorded();
                self.rules.held_keys.free(&freed);
                Ok(())
            }
            Settled::LeaseLost => Err(SessionEnd::LeaseLost),
        }
    }

    fn on_purged(&mut self, purged: DbResult<Purged>) -> Result<(), SessionEnd> {
        let now = Timer::now();
        let Purged { deleted, next, done } = match purged {
            Ok(purged) => purged,
            Err(error) if is_fatal(&error) => return Err(SessionEnd::Database(error)),
            // Housekeeping: what is in flight is not given up over it.
            Err(error) => {
                tracing::warn!(%error, "old messages could not be deleted; later again");
                self.flow.next_purge = now + PURGE_PAUSE;
                return Ok(());
            }
        };
        self.counters.purged(deleted);
        let flow = &mut self.flow;
        self.purged_to.store(next, Ordering::Relaxed);
        if done && now >= flow.next_purge_round {
            // From the beginning again now and then: what was held is passed, and may be free later.
            flow.next_purge_round = now + PURGE_ROUND;
            self.purged_to.store(0, Ordering::Relaxed);
        }
        flow.next_purge = now + if done { PURGE_PAUSE } else { self.settings.poll_busy };
        Ok(())
    }

    fn on_tick(&mut self) -> Result<(), SessionEnd> {
        self.flow.next_tick = Timer::now() + TICK;
        let health = self.publisher.health();
        let blocked = matches!(health, Health::Blocked { .. });
        self.rules.status.broker(health);
        let since = self.rules.status.report().since_progress;
        if since >= self.settings.stall_timeout && !blocked {
            return Err(SessionEnd::Stalled(since));
        }
        Ok(())
    }

    fn pause(&mut self, reason: Option<String>) {
        if self.flow.paused != reason.is_some() {
            tracing::info!(cursor = self.lease.cursor, reason, "paused or resumed by an operator");
        }
        self.flow.paused = reason.is_some();
        self.rules.status.paused(reason);
    }
}

/// What could start when its time comes.
struct May {
    record: bool,
    read: bool,
    look: bool,
    /// Set while the circuit lets nothing through.
    open: Option<Circuit>,
}

fn on_renewed(renewed: DbResult<Advance>) -> Result<(), SessionEnd> {
    match renewed.map_err(SessionEnd::Database)? {
        Advance::Done => Ok(()),
        Advance::LeaseLost => Err(SessionEnd::LeaseLost),
    }
}

fn lane_end(end: LaneEnd) -> SessionEnd {
    match end {
        LaneEnd::Unavailable(error) => SessionEnd::Broker(error),
        LaneEnd::LeaseExpired => SessionEnd::LeaseExpired,
    }
}
