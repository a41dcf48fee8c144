//! One term as holder of the cursor: read, publish, advance, renew, until something ends it.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use db::{CallError, Db};
use diesel::result::Error;
use outbox::reader::{Advance, Chunk, Due, HoldReason, Lease, LogStore, ReadLimit};
use tokio::time::{Instant as Timer, sleep_until};

use crate::deadline::LeaseDeadline;
use crate::flow::{DbResult, Flow, InFlight, Settled, Work, done, settled};
use crate::held_keys::HeldKeys;
use crate::holds::{self, Attempt, Round, RoundError};
use crate::lanes::{LaneEnd, Lanes};
use crate::settings::Settings;
use crate::settle::{holds_of, unpublishable};
use crate::shutdown::Shutdown;
use crate::telemetry::Counters;

/// Every way a session can end.
pub(crate) enum SessionEnd {
    /// Asked to stop; everything in flight is settled.
    Shutdown,
    /// Asked to stop, and the deadline passed before everything was settled.
    ShutdownForced,
    /// There was no more to read (only when asked to drain).
    Drained,
    /// A write found the epoch raised: another relay has the lease.
    LeaseLost,
    /// By our own clock the lease may have ended; nothing was published after that.
    LeaseExpired,
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

pub(crate) struct Session<C: LogStore> {
    pub(crate) db: Db<C>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) counters: Counters,
    pub(crate) lease: Lease,
    pub(crate) deadline: LeaseDeadline,
    pub(crate) lanes: Lanes,
    pub(crate) held_keys: HeldKeys,
    pub(crate) until: Until,
    pub(crate) flow: Flow,
}

impl<C: LogStore> Session<C> {
    /// Works until something ends the session. On return nothing of it runs on.
    pub(crate) async fn run(
        &mut self,
        shutdown: &mut Shutdown<impl Future<Output = ()>>,
    ) -> SessionEnd {
        let mut give_up = Timer::now();
        loop {
            self.start_what_can_start();
            if self.flow.idle() && self.flow.renewing.is_none() {
                if self.flow.stopping {
                    return SessionEnd::Shutdown;
                }
                if self.until == Until::Drained && self.flow.exhausted && !self.flow.keys_stale {
                    return SessionEnd::Drained;
                }
            }
            let flow = &mut self.flow;
            // Only what could start when its time comes is waited for: a timer in the past would spin.
            let room = flow.in_flight.len() < self.settings.chunks_in_flight;
            let may_read = !flow.stopping && !flow.keys_stale && flow.reading.is_none() && room;
            let may_look = !flow.stopping
                && !flow.keys_stale
                && flow.looking.is_none()
                && flow.retrying.is_none();
            let step = tokio::select! {
                biased;
                () = shutdown.asked(), if !flow.stopping => {
                    flow.stopping = true;
                    give_up = Timer::now() + self.settings.shutdown_timeout;
                    Ok(())
                }
                () = sleep_until(give_up), if flow.stopping => return SessionEnd::ShutdownForced,
                result = done(&mut flow.advancing) => self.on_advanced(result),
                result = done(&mut flow.renewing) => self.on_advanced(result),
                result = settled(&mut flow.in_flight), if flow.advancing.is_none() => self.on_settled(result),
                result = done(&mut flow.reading) => self.on_read(result),
                result = done(&mut flow.loading_keys) => self.on_keys(result),
                result = done(&mut flow.looking) => self.on_due(result),
                result = done(&mut flow.retrying) => self.on_retried(result),
                () = sleep_until(flow.next_renewal), if flow.renewing.is_none() => Ok(()),
                () = sleep_until(flow.next_read), if may_read => Ok(()),
                () = sleep_until(flow.next_look), if may_look => Ok(()),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn start_what_can_start(&mut self) {
        let now = Timer::now();
        if self.flow.renewing.is_none() && now >= self.flow.next_renewal {
            self.flow.next_renewal = now + self.settings.lease / 3;
            let lease = self.lease.clone();
            self.flow.renewing = Some(self.fenced(move |conn| conn.renew(&lease)));
        }
        let flow = &mut self.flow;
        if flow.stopping {
            return;
        }
        if flow.keys_stale && flow.idle() {
            let (db, cursor) = (self.db.clone(), self.settings.cursor.clone());
            flow.loading_keys =
                Some(Box::pin(async move { db.call(move |conn| conn.held_keys(&cursor)).await }));
        }
        let room = flow.in_flight.len() < self.settings.chunks_in_flight;
        if flow.reading.is_none() && room && !flow.keys_stale && now >= flow.next_read {
            let (db, from) = (self.db.clone(), flow.position.clone());
            let limit =
                ReadLimit { rows: self.settings.chunk_rows, bytes: self.settings.chunk_bytes };
            flow.reading =
                Some(Box::pin(async move { db.call(move |conn| conn.read(&from, limit)).await }));
        }
        if flow.looking.is_none()
            && flow.retrying.is_none()
            && now >= flow.next_look
            && !flow.keys_stale
        {
            flow.next_look = now + self.settings.poll_holds;
            flow.looking = Some(Box::pin(holds::due(self.db.clone(), self.settings.clone())));
        }
    }

    fn on_read(&mut self, chunk: DbResult<Chunk>) -> Result<(), SessionEnd> {
        let chunk = chunk.map_err(SessionEnd::Database)?;
        let flow = &mut self.flow;
        flow.exhausted = chunk.exhausted;
        // Nothing to hand on: the position holds without being stored, and an idle relay writes
        // nothing. A restart from the stored one reads the same.
        flow.position = chunk.next.clone();
        let now = Timer::now();
        if chunk.entries.is_empty() {
            flow.empty_reads = flow.empty_reads.saturating_add(1);
            let wait = self.settings.poll_busy.saturating_mul(1 << flow.empty_reads.min(16));
            flow.next_read =
                if chunk.exhausted { now + wait.min(self.settings.poll_idle) } else { now };
            return Ok(());
        }
        flow.empty_reads = 0;
        flow.next_read = if chunk.exhausted { now + self.settings.poll_busy } else { now };
        self.counters.read(chunk.entries.len());
        let mut holds = Vec::new();
        let mut messages = Vec::with_capacity(chunk.entries.len());
        for entry in chunk.entries {
            match unpublishable(&entry) {
                Some(hold) => {
                    // Known before anything later is dispatched. Nobody waits for a delayed one.
                    if let (Some(key), true) =
                        (&hold.ordering_key, hold.reason != HoldReason::Delayed)
                    {
                        self.held_keys.add(key);
                    }
                    holds.push(hold);
                }
                None => messages.push((entry.seq, entry.message)),
            }
        }
        let settled = Box::pin(self.lanes.dispatch(messages, false).settled());
        self.flow.in_flight.push_back(InFlight { next: chunk.next, holds, settled });
        Ok(())
    }

    /// The oldest chunk is settled: move the cursor behind it, and record what was held.
    fn on_settled(&mut self, settled: Settled) -> Result<(), SessionEnd> {
        let Settled { next, mut holds, published } = settled;
        let published = published.map_err(lane_end)?;
        let (confirmed, refused) = holds_of(&self.settings, &self.counters, published, |_| 0);
        holds.extend(refused);
        self.counters.held(&holds);
        self.flow.totals.confirmed += confirmed.len() as u64;
        self.flow.totals.held += holds.len() as u64;
        let lease = self.lease.clone();
        self.flow.next_renewal = Timer::now() + self.settings.lease / 3;
        self.flow.advancing = Some(self.fenced(move |conn| conn.advance(&lease, &next, &holds)));
        Ok(())
    }

    fn on_advanced(&mut self, advanced: DbResult<Advance>) -> Result<(), SessionEnd> {
        match advanced.map_err(SessionEnd::Database)? {
            Advance::Done => Ok(()),
            Advance::LeaseLost => Err(SessionEnd::LeaseLost),
        }
    }

    fn on_keys(&mut self, keys: DbResult<Vec<String>>) -> Result<(), SessionEnd> {
        self.held_keys.replace(keys.map_err(SessionEnd::Database)?);
        self.flow.keys_stale = false;
        Ok(())
    }

    fn on_due(&mut self, due: DbResult<Vec<Due>>) -> Result<(), SessionEnd> {
        let due = due.map_err(SessionEnd::Database)?;
        if due.is_empty() {
            return Ok(());
        }
        let attempts = due.iter().map(|due| (due.entry.seq, due.attempts)).collect();
        let mut spoilt = Vec::new();
        let mut messages = Vec::new();
        for Due { mut entry, .. } in due {
            // Its time has come: only a row that is no message at all stays.
            entry.delayed = false;
            match unpublishable(&entry) {
                Some(hold) => spoilt.push(hold),
                None => messages.push((entry.seq, entry.message)),
            }
        }
        let dispatched = self.lanes.dispatch(messages, true);
        self.flow.retrying = Some(Box::pin(holds::finish(
            self.db.clone(),
            self.lease.clone(),
            self.settings.clone(),
            self.counters.clone(),
            Attempt { attempts, spoilt, dispatched },
        )));
        Ok(())
    }

    fn on_retried(&mut self, round: Result<Round, RoundError>) -> Result<(), SessionEnd> {
        match round {
            Ok(Round::Tried { freed }) => {
                if freed {
                    // The next message of each key comes due at once.
                    self.flow.next_look = Timer::now();
                    self.flow.keys_stale |= self.held_keys.any();
                }
                Ok(())
            }
            Ok(Round::LeaseLost) => Err(SessionEnd::LeaseLost),
            Err(RoundError::Lane(end)) => Err(lane_end(end)),
            Err(RoundError::Database(error)) => Err(SessionEnd::Database(error)),
        }
    }

    /// A write that renews the lease: our own deadline moves only when it succeeded, and counts from
    /// before it was sent.
    fn fenced(
        &self,
        write: impl FnOnce(&mut C) -> Result<Advance, Error> + Send + 'static,
    ) -> Work<DbResult<Advance>> {
        let (db, deadline) = (self.db.clone(), self.deadline.clone());
        Box::pin(async move {
            let asked = Instant::now();
            let advance = db.call(write).await?;
            if advance == Advance::Done {
                deadline.renewed(asked);
            }
            Ok(advance)
        })
    }
}

fn lane_end(end: LaneEnd) -> SessionEnd {
    match end {
        LaneEnd::Unavailable(error) => SessionEnd::Broker(error),
        LaneEnd::LeaseExpired => SessionEnd::LeaseExpired,
    }
}
