use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use inbox::{Consumer, Parked};

use crate::databases::Databases;
use crate::faults::{ConsumeFaults, PublishFaults};
use crate::settled::{Standing, ask};
use crate::shop::{Credit, Shop};
use crate::{billing, naive};

/// More than this is not read of the parking lot; the count then differs from the expected one.
const MOST_PARKED: u32 = 100_000;

/// Everything the databases say at the end.
pub(crate) struct Figures {
    pub(crate) standing: Standing,
    /// The truth: cents by payment.
    pub(crate) payments: HashMap<String, i64>,
    pub(crate) billing: Account,
    pub(crate) naive: Account,
    pub(crate) parked: Vec<Parked>,
    /// From a payment to its credit through the inbox, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// From the first payment to the last credit through the inbox.
    pub(crate) elapsed: Duration,
}

/// A consumer's books.
pub(crate) struct Account {
    pub(crate) balance: i64,
    pub(crate) credits: Vec<Credit>,
}

/// What only the process that ran everything can know.
pub(crate) struct Provoked {
    pub(crate) relay: Arc<PublishFaults>,
    pub(crate) billing: Arc<ConsumeFaults>,
    pub(crate) naive: Arc<ConsumeFaults>,
    /// Deaths planned of the relay and of each consumer.
    pub(crate) deaths: u64,
    /// Orders planned.
    pub(crate) orders: usize,
    /// Most payments on their way at once.
    pub(crate) window: usize,
}

impl Figures {
    pub(crate) async fn gather<C: Shop>(
        databases: &Databases<C>,
        standing: Standing,
    ) -> Result<Self> {
        let payments = ask(&databases.shop, C::payments).await?.into_iter().collect();
        let parked =
            |conn: &mut C| inbox::parked(conn, Consumer(billing::CONSUMER), 0, MOST_PARKED);
        let billing = Account {
            balance: ask(&databases.billing, |conn| conn.balance(billing::CONSUMER)).await?,
            credits: ask(&databases.billing, |conn| conn.credits(billing::CONSUMER)).await?,
        };
        let naive = Account {
            balance: ask(&databases.naive, |conn| conn.balance(naive::CONSUMER)).await?,
            credits: ask(&databases.naive, |conn| conn.credits(naive::CONSUMER)).await?,
        };
        let mut latency = Histogram::new(3)?;
        for credit in &billing.credits {
            // Clocks can be set back.
            latency.record(u64::try_from(credit.credited_at - credit.paid_at).unwrap_or(0))?;
        }
        let first = billing.credits.iter().map(|credit| credit.paid_at).min().unwrap_or(0);
        let last = billing.credits.iter().map(|credit| credit.credited_at).max().unwrap_or(0);
        let elapsed = Duration::from_micros(u64::try_from(last - first).unwrap_or(0));
        let parked = ask(&databases.billing, parked).await?;
        Ok(Self { standing, payments, billing, naive, parked, latency, elapsed })
    }

    /// What the merchants are really owed.
    pub(crate) fn truth(&self) -> i64 {
        self.payments.values().sum()
    }

    /// Deliveries to the inbox's consumer, by what it did with them.
    pub(crate) fn billing_deliveries(&self) -> i64 {
        count(&self.billing.credits) + self.standing.repeats.duplicates + self.altered_deliveries()
    }

    /// Those among them that were parked: one that comes again is counted where it is parked.
    pub(crate) fn altered_deliveries(&self) -> i64 {
        self.parked.iter().map(|parked| parked.deliveries).sum()
    }

    /// Events that the inbox's consumer got more than once.
    pub(crate) fn billing_redelivered(&self) -> i64 {
        self.billing_deliveries() - self.standing.announced.total()
    }

    /// Events that the naive consumer got more than once.
    pub(crate) fn naive_redelivered(&self) -> i64 {
        count(&self.naive.credits) - self.standing.announced.total()
    }
}

pub(crate) fn count<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}
