use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use db::{CallError, Db};
use diesel::result::Error;
use migrations::SchemaError;
use outbox::admin::AdminStore;
use outbox::reader::Claim;
use transport::Publisher;

use crate::builder::RelayBuilder;
use crate::deadline::LeaseDeadline;
use crate::ended::Ended;
use crate::error::RelayError;
use crate::flow::{Flow, Totals};
use crate::held_keys::HeldKeys;
use crate::judge::{After, is_fatal, stalled};
use crate::lanes::{Lanes, Rules};
use crate::listener::Listener;
use crate::session::{Session, SessionEnd, Until};
use crate::settings::{Settings, Wake};
use crate::shutdown::Shutdown;
use crate::status::{Phase, Status};
use crate::telemetry::Counters;
use crate::wakeup::Wakeup;

/// Moves one cursor over one outbox to one broker.
pub struct Relay<C: AdminStore> {
    pub(crate) db: Db<C>,
    pub(crate) publisher: Arc<dyn Publisher>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) counters: Counters,
    pub(crate) status: Status,
    pub(crate) purged_to: Arc<AtomicI64>,
}

/// What [`Relay::run_once`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Messages the broker has confirmed, held ones tried again not counted.
    pub confirmed: u64,
    /// Messages held back.
    pub held: u64,
}

impl<C: AdminStore> Relay<C> {
    /// A relay from an outbox to a broker, with default settings.
    #[expect(
        clippy::new_ret_no_self,
        reason = "what is required is given here, the rest to the builder"
    )]
    pub fn new(db: Db<C>, publisher: Arc<dyn Publisher>) -> RelayBuilder<C> {
        RelayBuilder { db, publisher, settings: Settings::default() }
    }

    /// What it is doing, for health checks; to be asked for before [`run`](Self::run).
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Works until `shutdown` completes, through every outage of the broker or the database. Then it
    /// settles what is in flight, advances, gives the lease up and returns.
    ///
    /// # Errors
    /// [`RelayError`], when only a change of settings, rights or schema can help.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) -> Result<(), RelayError> {
        let mut working = std::pin::pin!(self.work(shutdown));
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        let ended = loop {
            tokio::select! {
                ended = &mut working => break ended,
                _ = ticks.tick() => self.status.turned(),
            }
        };
        self.status.phase(Phase::Stopped);
        if let Err(error) = &ended {
            self.status.failed(error);
        }
        ended
    }

    async fn work(&self, shutdown: impl Future<Output = ()>) -> Result<(), RelayError> {
        let mut shutdown = Shutdown::on(shutdown);
        let mut failures = 0;
        let mut ever_connected = false;
        let listener = self.listener();
        let wakeup = listener.as_ref().map(Listener::wakeup).unwrap_or_default();
        loop {
            let started = Instant::now();
            let mut opening = std::pin::pin!(self.open(Until::Shutdown, wakeup.clone()));
            let opened = tokio::select! {
                biased;
                () = shutdown.asked() => {
                    self.abandon(opening).await;
                    return Ok(());
                }
                opened = &mut opening => opened,
            };
            let end = match opened {
                Ok(mut session) => {
                    ever_connected = true;
                    let end = session.run(&mut shutdown).await;
                    self.close(session, end).await.0
                }
                Err(Opening::Busy { owner }) => {
                    tracing::debug!(cursor = self.settings.cursor, owner, "standing by");
                    self.status.phase(Phase::Standby { owner });
                    failures = 0;
                    if shutdown.within(self.settings.standby_poll).await {
                        return Ok(());
                    }
                    continue;
                }
                Err(Opening::Refused(error)) => return Err(error),
                Err(Opening::Failed(end)) => end,
            };
            let wait = match self.judge(end, ever_connected)? {
                After::Stop => return Ok(()),
                // Two that share an `owner` by mistake would take the lease from each other at once.
                After::StandBy => {
                    failures = 0;
                    self.settings.standby_poll
                }
                After::Wait => {
                    // A session that lasted was no failed attempt to connect.
                    let lasted = started.elapsed() > self.settings.reconnect.longest;
                    failures = if lasted { 1 } else { failures + 1 };
                    self.settings.reconnect.jittered(failures)
                }
            };
            if shutdown.within(wait).await {
                return Ok(());
            }
        }
    }

    /// A session that is being opened when shutdown comes: the lease it may have taken already is
    /// given up, so that a standby need not wait for its end.
    async fn abandon(&self, opening: impl Future<Output = Result<Session<C>, Opening>>) {
        match tokio::time::timeout(self.settings.shutdown_timeout, opening).await {
            Ok(Ok(session)) => drop(self.close(session, SessionEnd::Shutdown).await),
            Ok(Err(_)) => {}
            Err(_) => tracing::warn!("stopped while connecting; a lease taken ends by itself"),
        }
    }

    /// Publishes what is there and returns, for tests and for cron. Held messages that are due are
    /// tried as well.
    ///
    /// # Errors
    /// [`RelayError`]: unlike [`run`](Self::run) it does not wait for what is unavailable.
    pub async fn run_once(&self) -> Result<Drained, RelayError> {
        let cursor = || self.settings.cursor.clone();
        let mut session = match self.open(Until::Drained, Wakeup::default()).await {
            Ok(session) => session,
            Err(Opening::Busy { owner }) => {
                return Err(RelayError::Held { cursor: cursor(), owner });
            }
            Err(Opening::Refused(error)) => return Err(error),
            Err(Opening::Failed(SessionEnd::Database(error))) => {
                return Err(RelayError::Database(error));
            }
            Err(Opening::Failed(SessionEnd::Broker(error))) => {
                return Err(RelayError::Unavailable(error));
            }
            Err(Opening::Failed(_)) => return Err(RelayError::LeaseLost { cursor: cursor() }),
        };
        let end = session.run(&mut Shutdown::on(std::future::pending())).await;
        match self.close(session, end).await {
            (SessionEnd::Drained | SessionEnd::Shutdown | SessionEnd::ShutdownForced, totals) => {
                Ok(Drained { confirmed: totals.confirmed, held: totals.held })
            }
            (SessionEnd::LeaseLost | SessionEnd::LeaseExpired, _) => {
                Err(RelayError::LeaseLost { cursor: cursor() })
            }
            (SessionEnd::CircuitOpen(circuit), _) => {
                Err(RelayError::CircuitOpen { circuit: circuit.as_str() })
            }
            (SessionEnd::Stalled(after), _) => Err(RelayError::Unavailable(stalled(after))),
            (SessionEnd::Broker(error), _) => Err(RelayError::Unavailable(error)),
            (SessionEnd::Database(error), _) => Err(RelayError::Database(error)),
        }
    }

    fn listener(&self) -> Option<Listener> {
        match self.settings.wake {
            Wake::Poll => None,
            Wake::Notify => {
                let Settings { reconnect, .. } = &*self.settings;
                Some(Listener::start(self.db.clone(), *reconnect, self.counters.clone()))
            }
        }
    }

    async fn open(&self, until: Until, wakeup: Wakeup) -> Result<Session<C>, Opening> {
        let database = |error| Opening::Failed(SessionEnd::Database(error));
        match self.db.call_within(self.settings.lease, |conn| migrations::check(conn)).await {
            Ok(()) => {}
            Err(CallError::Work(SchemaError::Database(error))) => {
                return Err(database(CallError::Work(error)));
            }
            Err(CallError::Work(error)) => return Err(Opening::Refused(error.into())),
            Err(error) => return Err(database(error.map(|_| Error::NotFound))),
        }
        let asked = Instant::now();
        let Settings { cursor, owner, lease: ttl, .. } = (*self.settings).clone();
        let claim = self
            .db
            .call_within(ttl, move |conn| conn.claim(&cursor, &owner, ttl))
            .await
            .map_err(database)?;
        let cursor = || self.settings.cursor.clone();
        let (lease, position) = match claim {
            Claim::Taken(lease, position) => (lease, position),
            Claim::Busy { owner, .. } => return Err(Opening::Busy { owner }),
            Claim::Unknown => {
                return Err(Opening::Refused(RelayError::UnknownCursor { cursor: cursor() }));
            }
            Claim::Foreign(foreign) => {
                let cursor = cursor();
                return Err(Opening::Refused(RelayError::Foreign { cursor, foreign }));
            }
        };
        if let Some(from) = lease.promoted_from {
            tracing::warn!(
                cursor = lease.cursor,
                from,
                to = lease.timeline,
                "the database was failed over: going on from what its new primary has; messages of \
                 transactions that it lost may be published already"
            );
        }
        let rules = Rules {
            deadline: LeaseDeadline::new(asked, ttl),
            held_keys: HeldKeys::default(),
            status: self.status.clone(),
            window: self.publisher.window(),
            per_key: self.settings.key_in_flight,
        };
        let lanes = match Lanes::open(&self.publisher, self.settings.lanes, &rules).await {
            Ok(lanes) => lanes,
            Err(error) => {
                // Another relay may reach the broker.
                let _ = self.db.call_within(ttl, move |conn| conn.release(&lease)).await;
                return Err(Opening::Failed(SessionEnd::Broker(error)));
            }
        };
        tracing::info!(
            cursor = lease.cursor,
            epoch = lease.epoch,
            seq = position.seq(),
            "relaying"
        );
        self.status.phase(Phase::Active { epoch: lease.epoch });
        self.status.broker(self.publisher.health());
        Ok(Session {
            db: self.db.clone(),
            publisher: self.publisher.clone(),
            settings: self.settings.clone(),
            counters: self.counters.clone(),
            lease,
            rules,
            lanes,
            until,
            flow: Flow::from(position),
            wakeup,
            purged_to: self.purged_to.clone(),
        })
    }

    /// Ends a session: its lanes first, then the lease, so that a successor never publishes beside
    /// them.
    async fn close(&self, session: Session<C>, end: SessionEnd) -> (SessionEnd, Totals) {
        let Session { lease, lanes, flow, wakeup, .. } = session;
        drop(lanes);
        wakeup.wake();
        let totals = flow.totals;
        self.counters.repeated(flow.messages_in_flight() as u64);
        drop(flow);
        self.status.session_ended();
        self.status.broker(self.publisher.health());
        let (ended, release) = match &end {
            SessionEnd::Shutdown => (Ended::Shutdown, true),
            SessionEnd::Drained | SessionEnd::CircuitOpen(_) => (Ended::Drained, true),
            // What lanes have sent may still be on its way: the lease runs out in its own time.
            SessionEnd::ShutdownForced => (Ended::ShutdownForced, false),
            SessionEnd::Broker(_) => (Ended::BrokerUnavailable, true),
            SessionEnd::LeaseLost => (Ended::LeaseLost, false),
            SessionEnd::LeaseExpired => (Ended::LeaseExpired, false),
            SessionEnd::Stalled(_) => (Ended::Stalled, true),
            SessionEnd::Database(error) if is_fatal(error) => (Ended::Fatal, false),
            SessionEnd::Database(_) => (Ended::DatabaseUnavailable, false),
        };
        self.counters.session_ended(ended);
        if release
            && let Err(error) =
                self.db.call_within(lease.ttl, move |conn| conn.release(&lease)).await
        {
            tracing::warn!(%error, "the lease could not be given up; it ends by itself");
        }
        (end, totals)
    }
}

enum Opening {
    Busy {
        owner: String,
    },
    /// Waiting would not help.
    Refused(RelayError),
    Failed(SessionEnd),
}
