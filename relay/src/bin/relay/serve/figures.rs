use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use db::Db;
use outbox::admin::AdminStore;
use relay::telemetry;
use tokio::sync::{OnceCell, watch};

use crate::config::Config;
use crate::database::{self, address};

/// Nobody looks more often.
const INTERVAL: Duration = Duration::from_secs(5);
/// At most a twentieth of the time is spent on looking, however large the backlog.
const SHARE: u32 = 20;
/// How long a page waits for new figures before it shows the last ones.
const PATIENCE: Duration = Duration::from_secs(3);
const STATEMENT: Duration = Duration::from_secs(5);
/// Counting on is of no use to anybody, and costs.
const BOUND: u32 = 1_000_000;
/// What can be counted at any time.
const SMALL_BOUND: u32 = 10_000;

/// The figures that come from the database: read when somebody asks, by one at a time, on a
/// connection of their own, so that a slow count takes nothing from the relay.
pub(crate) struct Figures {
    source: Box<dyn Fn() + Send + Sync>,
    known: watch::Receiver<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    figures: telemetry::Figures,
    at: Instant,
    next: Instant,
}

impl Figures {
    pub(crate) fn of<C: AdminStore>(config: &Config, cursor: &str) -> Result<Self> {
        let (sender, known) = watch::channel(None);
        let reader = Arc::new(Reader::<C> {
            address: address(config)?.to_owned(),
            settings: settings(config),
            cursor: cursor.to_owned(),
            db: OnceCell::new(),
            busy: AtomicBool::new(false),
            sender,
        });
        let source = Box::new(move || {
            if !reader.busy.swap(true, Ordering::AcqRel) {
                let reader = reader.clone();
                tokio::spawn(async move {
                    reader.read().await;
                    reader.busy.store(false, Ordering::Release);
                });
            }
        });
        Ok(Self { source, known })
    }

    /// The last figures and their age. When they are old, new ones are asked for, for next time.
    pub(crate) fn known(&self) -> Option<(telemetry::Figures, Duration)> {
        let known = self.known.borrow().clone();
        if known.as_ref().is_none_or(|known| Instant::now() >= known.next) {
            (self.source)();
        }
        known.map(|known| (known.figures, known.at.elapsed()))
    }

    /// As [`known`](Self::known), after a wait for new figures if they are due.
    pub(crate) async fn fresh(&self) -> Option<(telemetry::Figures, Duration)> {
        let mut receiver = self.known.clone();
        let due = receiver.borrow_and_update().as_ref().is_none_or(|k| Instant::now() >= k.next);
        if due {
            (self.source)();
            let _ = tokio::time::timeout(PATIENCE, receiver.changed()).await;
        }
        self.known.borrow().clone().map(|known| (known.figures, known.at.elapsed()))
    }
}

fn settings(config: &Config) -> db::Settings {
    let mut settings = database::settings(config)
        .with_pool_size(1)
        .with_application_name("counterfoil-relay figures");
    settings.acquire_timeout = settings.acquire_timeout.min(PATIENCE);
    settings.statement_timeout = STATEMENT;
    settings
}

struct Reader<C: AdminStore> {
    address: String,
    settings: db::Settings,
    cursor: String,
    db: OnceCell<Db<C>>,
    busy: AtomicBool,
    sender: watch::Sender<Option<Known>>,
}

impl<C: AdminStore> Reader<C> {
    async fn read(&self) {
        let began = Instant::now();
        match self.look().await {
            Ok(figures) => {
                let at = Instant::now();
                let next = at + INTERVAL.max(began.elapsed() * SHARE);
                self.sender.send_replace(Some(Known { figures, at, next }));
            }
            // The relay itself says what is wrong with the database; here the figures only grow old.
            Err(error) => tracing::debug!(%error, "the database gave no figures"),
        }
    }

    async fn look(&self) -> Result<telemetry::Figures> {
        let connect = || Db::connect(&self.address, self.settings.clone());
        let db = self.db.get_or_try_init(connect).await?;
        let cursor = self.cursor.clone();
        let figures = db.call(move |conn| {
            let backlog = conn
                .backlog(&cursor, BOUND, STATEMENT)
                .or_else(|_| conn.backlog(&cursor, SMALL_BOUND, STATEMENT))?;
            let holds = conn.hold_counts()?;
            let vitals = conn.vitals(STATEMENT)?;
            Ok::<_, diesel::result::Error>(telemetry::Figures { backlog, holds, vitals })
        });
        Ok(figures.await?)
    }
}
