use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use message::Message;
use tokio::sync::Notify;
use transport::{Health, Lane, Publisher, Unavailable, Verdict};

/// When relays die, and how much was confirmed. Outlives each of them.
#[derive(Debug)]
pub(crate) struct PublishFaults {
    /// A relay dies each time so many more messages are confirmed.
    die_every: u64,
    deaths_left: AtomicU64,
    deaths: AtomicU64,
    confirmed: AtomicU64,
    dying: Notify,
}

impl PublishFaults {
    /// So many deaths, one each time `die_every` more messages are confirmed.
    pub(crate) fn new(die_every: u64, deaths: u64) -> Self {
        Self {
            die_every: die_every.max(1),
            deaths_left: AtomicU64::new(deaths),
            deaths: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            dying: Notify::new(),
        }
    }

    /// Publishes that the broker has confirmed, repeats included.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// How many relays have died.
    pub(crate) fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::Relaxed)
    }

    /// Returns when the relay that runs now has to be killed.
    pub(crate) async fn dying(&self) {
        self.dying.notified().await;
    }

    /// Counts, and says whether this batch was a relay's last.
    fn count(&self, verdicts: &[Verdict]) -> bool {
        let more = verdicts.iter().filter(|verdict| **verdict == Verdict::Confirmed).count() as u64;
        let before = self.confirmed.fetch_add(more, Ordering::Relaxed);
        if before / self.die_every == (before + more) / self.die_every {
            return false;
        }
        let left = self
            .deaths_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.is_ok()
    }
}

/// A publisher that lets its relay die after the broker has confirmed a batch and before the relay
/// hears of it, so that the cursor stays behind what was published.
pub(crate) struct FaultyPublisher {
    pub(crate) inner: Arc<dyn Publisher>,
    pub(crate) faults: Arc<PublishFaults>,
}

#[async_trait]
impl Publisher for FaultyPublisher {
    async fn open_lane(&self) -> Result<Box<dyn Lane>, Unavailable> {
        let inner = self.inner.open_lane().await?;
        Ok(Box::new(FaultyLane { inner, faults: self.faults.clone() }))
    }

    async fn open_lane_to(&self, queue: &str) -> Result<Box<dyn Lane>, Unavailable> {
        let inner = self.inner.open_lane_to(queue).await?;
        Ok(Box::new(FaultyLane { inner, faults: self.faults.clone() }))
    }

    async fn open_reply_lane(&self) -> Result<Box<dyn Lane>, Unavailable> {
        let inner = self.inner.open_reply_lane().await?;
        Ok(Box::new(FaultyLane { inner, faults: self.faults.clone() }))
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn heartbeat(&self) -> Option<Duration> {
        self.inner.heartbeat()
    }

    fn publish_timeout(&self) -> Duration {
        self.inner.publish_timeout()
    }

    fn window(&self) -> usize {
        self.inner.window()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct FaultyLane {
    inner: Box<dyn Lane>,
    faults: Arc<PublishFaults>,
}

#[async_trait]
impl Lane for FaultyLane {
    async fn publish(&mut self, batch: &[Message]) -> Result<Vec<Verdict>, Unavailable> {
        let verdicts = self.inner.publish(batch).await?;
        if self.faults.count(&verdicts) {
            self.faults.deaths.fetch_add(1, Ordering::Relaxed);
            self.faults.dying.notify_one();
            // Whoever listens kills the relay; it must not hear of the confirms before.
            std::future::pending::<()>().await;
        }
        Ok(verdicts)
    }
}
