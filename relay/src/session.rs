//! One term as holder of the cursor: read, publish, advance, renew, until something ends it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use db::{CallError, Db};
use diesel::result::Error;
use outbox::admin::AdminStore;
use outbox::reader::{Lease, ReadLimit};
use tokio::time::{Instant as Timer, sleep_until};
use transport::Publisher;

use crate::answers::on_renewed;
use crate::breaker::PROBE_ROWS;
use crate::flow::{Flow, answered, done};
use crate::holds::{Tried, look};
use crate::lanes::{Lanes, Rules};
use crate::settings::Settings;
use crate::shutdown::Shutdown;
use crate::status::{Circuit, Phase};
use crate::telemetry::Counters;
use crate::wakeup::Wakeup;
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
    pub(crate) wakeup: Wakeup,
    /// How far the purge has come, in this session and the ones before it.
    pub(crate) purged_to: Arc<AtomicI64>,
}

/// How often the loop looks up when nothing happens.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// How often what is held is loaded again while there is some: an operator may have decided.
const RELOAD: Duration = Duration::from_secs(5);

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
                // One heard during a read is kept for the time after it. Reads stay as far apart as under load.
                () = self.wakeup.heard(), if may.read => {
                    flow.next_read = flow.next_read.min(flow.read_at + self.settings.poll_busy);
                    Ok(())
                }
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
            self.wakeup.wake();
            return May { record, read: false, look: false, open: None };
        }
        let circuit = flow.breaker.circuit(now, flow.held, &self.settings);
        self.rules.status.circuit(circuit);
        let (chunks, rows) = match circuit {
            Circuit::Closed => (self.settings.chunks_in_flight, self.settings.chunk_rows),
            Circuit::HalfOpen => (1, PROBE_ROWS.min(self.settings.chunk_rows)),
            Circuit::OpenRefused | Circuit::OpenHolds => (0, 0),
        };
        if flow.paused || chunks == 0 {
            // Nothing would be read: nobody is to be told to tell.
            self.wakeup.wake();
        }
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
            let lease = self.lease.clone();
            flow.settling = Some(fenced(&self.db, &self.rules.deadline, move |conn| {
                conn.settle(&lease, &results)
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
}

/// What could start when its time comes.
struct May {
    record: bool,
    read: bool,
    look: bool,
    /// Set while the circuit lets nothing through.
    open: Option<Circuit>,
}
