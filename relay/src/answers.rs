//! What a session does with what came of the work it had under way.

use std::sync::atomic::Ordering;
use std::time::Duration;

use db::CallError;
use outbox::admin::{AdminStore, Purged};
use outbox::reader::{Advance, Chunk, Hold, HoldReason, Settled};
use tokio::time::Instant as Timer;
use transport::Health;

use crate::flow::{Answered, DbResult, InFlight, Known};
use crate::holds::{Look, Round, Tried};
use crate::judge::is_fatal;
use crate::lanes::LaneEnd;
use crate::session::{Session, SessionEnd, TICK};
use crate::settle::{outcome, unpublishable};
use crate::wakeup::{QUIET, UNTOLD};
use crate::work::fenced;

/// How often the purge begins at the oldest message again.
pub(crate) const PURGE_ROUND: Duration = Duration::from_secs(3_600);
/// How often the purge looks for more when it was through.
const PURGE_PAUSE: Duration = Duration::from_secs(60);

impl<C: AdminStore> Session<C> {
    pub(crate) fn on_read(&mut self, chunk: DbResult<Chunk>) -> Result<(), SessionEnd> {
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
            if chunk.exhausted && now.saturating_duration_since(flow.rows_at) >= QUIET {
                self.wakeup.sleep();
            }
            let wait = self.wakeup.wait(wait, self.settings.poll_idle);
            flow.next_read = if chunk.exhausted { now + wait } else { now };
            return Ok(());
        }
        self.wakeup.wake();
        flow.empty_reads = 0;
        flow.rows_at = now;
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
    pub(crate) fn on_answered(&mut self, oldest: Answered) -> Result<(), SessionEnd> {
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

    pub(crate) fn on_advanced(&mut self, advanced: DbResult<Advance>) -> Result<(), SessionEnd> {
        on_renewed(advanced)?;
        self.recorded();
        Ok(())
    }

    pub(crate) fn recorded(&mut self) {
        let keys = std::mem::take(&mut self.flow.recording);
        if !keys.is_empty() {
            self.rules.held_keys.recorded(&keys);
            // A dead message that is passed by leaves its key among the held ones.
            self.flow.next_load = self.flow.next_load.min(Timer::now() + TICK);
        }
        self.rules.status.held(self.flow.held);
    }

    pub(crate) fn on_loaded(&mut self, known: DbResult<Known>) -> Result<(), SessionEnd> {
        let Known { keys, held, paused } = known.map_err(SessionEnd::Database)?;
        self.rules.held_keys.replace(keys);
        self.flow.held = held;
        self.flow.known = true;
        self.pause(paused);
        self.rules.status.held(held);
        Ok(())
    }

    pub(crate) fn on_look(&mut self, look: DbResult<Look>) -> Result<(), SessionEnd> {
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

    pub(crate) fn on_retried(&mut self, tried: Result<Tried, LaneEnd>) -> Result<(), SessionEnd> {
        let tried = tried.map_err(lane_end)?;
        if tried.confirmed > 0 {
            // The next messages of each key come due at once.
            self.flow.next_look = Timer::now();
            self.flow.held = self.flow.held.saturating_sub(tried.counted);
        }
        self.flow.tried = Some(tried);
        Ok(())
    }

    pub(crate) fn on_settled(&mut self, settled: DbResult<Settled>) -> Result<(), SessionEnd> {
        match settled.map_err(SessionEnd::Database)? {
            Settled::Done { freed } => {
                self.recorded();
                self.rules.held_keys.free(&freed);
                Ok(())
            }
            Settled::LeaseLost => Err(SessionEnd::LeaseLost),
        }
    }

    pub(crate) fn on_purged(&mut self, purged: DbResult<Purged>) -> Result<(), SessionEnd> {
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

    pub(crate) fn on_tick(&mut self) -> Result<(), SessionEnd> {
        let now = Timer::now();
        self.flow.next_tick = now + TICK;
        if self.wakeup.untold() {
            // A long wait began while commits were told.
            self.flow.next_read = self.flow.next_read.min(now + UNTOLD);
        }
        let health = self.publisher.health();
        let blocked = matches!(health, Health::Blocked { .. });
        self.rules.status.broker(health);
        let since = self.rules.status.report().since_progress;
        if since >= self.settings.stall_timeout && !blocked {
            return Err(SessionEnd::Stalled(since));
        }
        Ok(())
    }

    pub(crate) fn pause(&mut self, reason: Option<String>) {
        if self.flow.paused != reason.is_some() {
            tracing::info!(cursor = self.lease.cursor, reason, "paused or resumed by an operator");
        }
        self.flow.paused = reason.is_some();
        self.rules.status.paused(reason);
    }
}

pub(crate) fn on_renewed(renewed: DbResult<Advance>) -> Result<(), SessionEnd> {
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
