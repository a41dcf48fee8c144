use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use diesel::SqliteConnection;
use inbox::effect::State;
use inbox::effect::admin::{Selection, list};
use inbox::testing::pass_time;
use inbox::{Ending, Inbox};
use relay::{Relay, RelayError};
use tokio::runtime::Builder;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{Instant, sleep};

use crate::books::Books;
use crate::mailbox::Mailbox;
use crate::provider::Provider;
use crate::shop::Shop;
use crate::{mail, payment};

/// Far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// As long as a parked message belongs to whoever died with it.
const LEASE: Duration = Duration::from_secs(60);

/// What happens after the orders are placed.
pub(crate) struct Story {
    pub(crate) shop: Shop,
    pub(crate) relay: Relay<SqliteConnection>,
    pub(crate) inventory: Inbox<SqliteConnection>,
    /// Those behind it, in the order in which an order comes by.
    pub(crate) consumers: [Inbox<SqliteConnection>; 5],
    pub(crate) payment: Provider,
    pub(crate) mailbox: Mailbox,
}

/// What went wrong, and how often.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) duplicates: u64,
    pub(crate) confirms_lost: usize,
    pub(crate) outages: usize,
    /// Charges on which a consumer died.
    pub(crate) died_on: usize,
    pub(crate) looked_up: usize,
}

impl Story {
    /// Round after round, until nothing is under way.
    pub(crate) async fn tell(&self) -> Result<Told> {
        let mut told = Told::default();
        let begun = Instant::now();
        self.shop.broker.redeliver_every(5);
        self.shop.broker.duplicate_next(20);
        self.shop.broker.lose_confirms(1);
        self.publish(&mut told).await?;
        self.lose_the_broker(&mut told).await?;
        self.publish(&mut told).await?;
        self.die_at_work(&mut told).await?;
        loop {
            self.publish(&mut told).await?;
            for consumer in [&self.inventory].into_iter().chain(&self.consumers) {
                told.duplicates += consumer.run_until_idle().await?.of(Ending::Duplicate);
            }
            told.looked_up += mail::look_them_up(&self.shop, &self.mailbox).await?;
            let books = Books::read(&self.shop).await?;
            if books.settled() {
                return Ok(told);
            }
            ensure!(begun.elapsed() < PATIENCE, "never settled: {books:?}");
            // What is parked comes when it is due.
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn publish(&self, told: &mut Told) -> Result<()> {
        let drained = match self.relay.run_once().await {
            // The broker has them, and the relay does not know: it publishes them again.
            Err(RelayError::Unavailable(_)) => {
                told.confirms_lost += 1;
                self.relay.run_once().await?
            }
            drained => drained?,
        };
        ensure!(drained.held == 0, "{} events that no queue takes", drained.held);
        Ok(())
    }

    /// The broker is gone while stock is set aside, and comes back.
    async fn lose_the_broker(&self, told: &mut Told) -> Result<()> {
        let broker = &self.shop.broker;
        let outage = async {
            until("the inventory does nothing", || broker.unacked("inventory") > 0).await?;
            broker.disconnect();
            let gone = self.relay.run_once().await;
            broker.reconnect();
            match gone {
                Err(RelayError::Unavailable(_)) => Ok(()),
                other => bail!("the broker is gone, and the relay says {other:?}"),
            }
        };
        let (endings, outage) = tokio::join!(self.inventory.run_until_idle(), outage);
        outage?;
        told.outages += 1;
        told.duplicates += endings?.of(Ending::Duplicate);
        Ok(())
    }

    /// The consumer of payments is gone in the middle of its calls.
    async fn die_at_work(&self, told: &mut Told) -> Result<()> {
        self.payment.be_silent(true);
        let doomed = payment::consumer(&self.shop, &self.payment).await?.build()?;
        // A runtime of its own: its handlers would finish their work if only `run` were dropped.
        let process = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        process.spawn(doomed.run(std::future::pending()));
        let calling =
            until("the consumer of payments does nothing", || self.payment.requests() > 0).await;
        spawn_blocking(move || process.shutdown_timeout(PATIENCE)).await?;
        calling?;
        self.payment.be_silent(false);
        told.died_on = self.calls_under_way().await?;
        // What it had in hand is free when its leases are over, and nobody waits a minute for a story.
        let passed = self.shop.db.call(|conn| pass_time(conn, payment::CONSUMER, LEASE)).await;
        passed.context("time cannot pass")
    }

    /// Charges that were asked for, and nothing more is known about them.
    async fn calls_under_way(&self) -> Result<usize> {
        let mut which = Selection::default();
        which.state = Some(State::Attempted);
        let effects = self.shop.db.call(move |conn| list(conn, &which)).await;
        Ok(effects.context("the ledger cannot be read")?.len())
    }
}

async fn until(otherwise: &str, happened: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !happened() {
        ensure!(begun.elapsed() < PATIENCE, "{otherwise}");
        yield_now().await;
    }
    Ok(())
}
