use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::select;
use tokio_util::sync::CancellationToken;
use transport::{Acknowledge, Delivery, Subscriber, Subscription, Unavailable};

/// How a consumer dies between commit and ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// It loses its subscription, with everything it holds.
    Subscription,
    /// The process aborts.
    Process,
}

/// When a consumer's answers go wrong, and how often they did.
#[derive(Debug)]
pub(crate) struct ConsumeFaults {
    pub(crate) death: Death,
    /// It dies at each such delivery; 0 for never.
    pub(crate) die_every: u64,
    pub(crate) deaths_left: AtomicU64,
    /// The broker delivers each such message again although it was dealt with; 0 for never.
    pub(crate) redeliver_every: u64,
    fresh: AtomicU64,
    delivered: AtomicU64,
    redelivered: AtomicU64,
    deaths: AtomicU64,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Ack,
    Redeliver,
    Die,
}

impl ConsumeFaults {
    pub(crate) fn new(death: Death, die_every: u64, deaths: u64, redeliver_every: u64) -> Self {
        Self {
            death,
            die_every,
            deaths_left: AtomicU64::new(deaths),
            redeliver_every,
            fresh: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            redelivered: AtomicU64::new(0),
            deaths: AtomicU64::new(0),
        }
    }

    /// Deliveries worked on. One that was still waiting for its turn when the consumer died is none: it comes again.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Deliveries among them that the broker marked as redelivered.
    pub(crate) fn redelivered(&self) -> u64 {
        self.redelivered.load(Ordering::Relaxed)
    }

    /// How often it died.
    pub(crate) fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::Relaxed)
    }

    fn fate(&self, redelivered: bool) -> Fate {
        if redelivered {
            // Answered properly, or some messages would go round and round.
            self.redelivered.fetch_add(1, Ordering::Relaxed);
            return Fate::Ack;
        }
        let number = self.fresh.fetch_add(1, Ordering::Relaxed) + 1;
        let due = |every: u64| every > 0 && number.is_multiple_of(every);
        let one_less = |left: u64| left.checked_sub(1);
        if due(self.die_every)
            && self.deaths_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
        {
            return Fate::Die;
        }
        if due(self.redeliver_every) { Fate::Redeliver } else { Fate::Ack }
    }
}

/// A subscriber some of whose answers never reach the broker.
pub(crate) struct FaultySubscriber {
    pub(crate) inner: Arc<dyn Subscriber>,
    pub(crate) faults: Arc<ConsumeFaults>,
}

#[async_trait]
impl Subscriber for FaultySubscriber {
    async fn subscribe(
        &self,
        queue: &str,
        prefetch: u16,
    ) -> Result<Box<dyn Subscription>, Unavailable> {
        let inner = self.inner.subscribe(queue, prefetch).await?;
        Ok(Box::new(FaultySubscription {
            inner,
            faults: self.faults.clone(),
            dead: CancellationToken::new(),
        }))
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct FaultySubscription {
    inner: Box<dyn Subscription>,
    faults: Arc<ConsumeFaults>,
    dead: CancellationToken,
}

#[async_trait]
impl Subscription for FaultySubscription {
    async fn receive(&mut self) -> Result<Delivery, Unavailable> {
        let delivery = select! {
            biased;
            () = self.dead.cancelled() => return Err(died()),
            delivery = self.inner.receive() => delivery?,
        };
        let fate = self.faults.fate(delivery.redelivered);
        let Delivery { acker, .. } = delivery;
        let acker =
            FaultyAck { inner: acker, fate, faults: self.faults.clone(), dead: self.dead.clone() };
        Ok(Delivery { acker: Box::new(acker), ..delivery })
    }

    async fn waiting(&mut self) -> Result<u64, Unavailable> {
        self.inner.waiting().await
    }
}

#[derive(Debug)]
struct FaultyAck {
    inner: Box<dyn Acknowledge>,
    fate: Fate,
    faults: Arc<ConsumeFaults>,
    dead: CancellationToken,
}

#[async_trait]
impl Acknowledge for FaultyAck {
    async fn ack(self: Box<Self>) -> Result<(), Unavailable> {
        self.faults.delivered.fetch_add(1, Ordering::Relaxed);
        match self.fate {
            Fate::Ack => self.inner.ack().await,
            // As if the ack had been lost: the consumer believes it was taken.
            Fate::Redeliver => self.inner.requeue().await,
            Fate::Die => {
                self.faults.deaths.fetch_add(1, Ordering::Relaxed);
                if self.faults.death == Death::Process {
                    eprintln!("committed and not acknowledged: aborting, as told by --crash-every");
                    std::process::abort();
                }
                self.dead.cancel();
                Err(died())
            }
        }
    }

    // Only of batches, which this shop does not apply.
    async fn ack_through(self: Box<Self>) -> Result<(), Unavailable> {
        self.inner.ack_through().await
    }

    async fn requeue(self: Box<Self>) -> Result<(), Unavailable> {
        self.inner.requeue().await
    }
}

fn died() -> Unavailable {
    Unavailable::Lost { source: "the consumer died between commit and ack".into() }
}
