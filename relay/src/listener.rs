//! The thread on which a sleeping relay is told of commits.
//!
//! A thread and not a task of the pool's: its connection is its own for as long as it lasts, and the client
//! library shows no socket that could be waited on, so it looks every few milliseconds into what has come in. That
//! asks the database nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use db::Db;
use outbox::admin::AdminStore;

use crate::backoff::Backoff;
use crate::telemetry::Counters;
use crate::wakeup::{Shared, Wakeup, Wanted};

/// How often it looks into what has come in, which is the floor of the delay from commit to read.
const LOOK: Duration = Duration::from_millis(10);
/// How often falling asleep is tried again: the transaction that is in the way may be a long one.
const AGAIN: Duration = Duration::from_millis(250);
/// How often it makes sure that the connection lives. Well below what the server lets a session be silent.
const BEAT: Duration = Duration::from_secs(10);

/// Ends the thread when it is dropped, without waiting for it: it may be waiting for a frozen database.
pub(crate) struct Listener(Arc<Shared>);

impl Listener {
    /// Starts the thread. It connects when it is needed first: a standby never does.
    pub(crate) fn start<C: AdminStore>(db: Db<C>, reconnect: Backoff, counters: Counters) -> Self {
        let shared = Arc::<Shared>::default();
        let thread = Thread { db, reconnect, counters, shared: shared.clone() };
        let spawn = std::thread::Builder::new().name("relay-wakeup".to_owned());
        if let Err(error) = spawn.spawn(move || thread.run()) {
            tracing::warn!(%error, "no thread to be told of commits on; polling");
        }
        Self(shared)
    }

    pub(crate) fn wakeup(&self) -> Wakeup {
        Wakeup::with(self.0.clone())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.want(Wanted::End);
    }
}

struct Thread<C: AdminStore> {
    db: Db<C>,
    reconnect: Backoff,
    counters: Counters,
    shared: Arc<Shared>,
}

type Lost = Box<dyn std::error::Error + Send + Sync>;

impl<C: AdminStore> Thread<C> {
    fn run(self) {
        let mut failures = 0;
        let mut wanted = Wanted::Nothing;
        loop {
            wanted = match wanted {
                Wanted::Nothing => self.shared.wanted_within(wanted, BEAT),
                Wanted::ToBeTold => {
                    let started = Instant::now();
                    let Err(error) = self.connection() else { return };
                    self.shared.told(false);
                    self.counters.listener_lost();
                    let lasted = started.elapsed() > self.reconnect.longest;
                    failures = if lasted { 1 } else { failures + 1 };
                    // Said once and not with each attempt: nothing is late by more than polling makes it.
                    if failures == 1 {
                        tracing::warn!(%error, "commits are not told for the moment; polling meanwhile");
                    } else {
                        tracing::debug!(%error, failures, "commits are not told yet");
                    }
                    self.pause(self.reconnect.jittered(failures))
                }
                Wanted::End => return,
            };
        }
    }

    /// Waits that long whatever the session wants, unless it is at its end.
    fn pause(&self, wait: Duration) -> Wanted {
        let until = Instant::now() + wait;
        let mut wanted = Wanted::ToBeTold;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            wanted = self.shared.wanted_within(wanted, left);
            if wanted == Wanted::End || left.is_zero() {
                return wanted;
            }
        }
    }

    /// One connection, for as long as it lasts and the relay does.
    fn connection(&self) -> Result<(), Lost> {
        let mut conn = self.db.separate()?;
        conn.listen()?;
        let mut wanted = Wanted::ToBeTold;
        let mut asleep = false;
        // When the database is to be asked something next.
        let mut next = Instant::now();
        loop {
            let due = Instant::now() >= next;
            match wanted {
                Wanted::ToBeTold => {
                    if due {
                        let held = std::mem::replace(&mut asleep, conn.watch()?);
                        next = Instant::now() + if asleep { BEAT } else { AGAIN };
                        if asleep && !held {
                            // What was told before is in the read that is called for now.
                            conn.heard()?;
                        }
                        self.shared.told(asleep);
                    }
                    if conn.heard()? && asleep {
                        self.counters.woken();
                        self.shared.call();
                    }
                }
                Wanted::Nothing => {
                    if asleep || due {
                        self.shared.untold();
                        conn.unwatch()?;
                        asleep = false;
                        next = Instant::now() + BEAT;
                    }
                }
                Wanted::End => return Ok(()),
            }
            let left = next.saturating_duration_since(Instant::now());
            let now = self.shared.wanted_within(wanted, if asleep { LOOK } else { left });
            if now != wanted {
                wanted = now;
                next = Instant::now();
            }
        }
    }
}
