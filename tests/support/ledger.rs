//! What was committed, and what arrived of it: nothing lost, no ghost, the order of each key kept.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::connection::LoadConnection;
use diesel::result::Error;
use message::Event;
use outbox::{Draft, EnqueueError, OutboxBackend};
use transport::{Subscription, Verdict};

use crate::broker::{Broker, Corner, message};
use crate::events::Fact;

/// The last committed number of each key. Numbers have no gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    numbers: BTreeMap<String, i64>,
}

impl Ledger {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many facts were committed.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.numbers.values().sum::<i64>()).expect("fits")
    }

    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Commits `count` facts about `keys` keys in transactions of up to 40, a tenth of which are
    /// rolled back and tried again.
    pub fn produce<C>(&mut self, conn: &mut C, exchange: &str, keys: usize, count: usize)
    where
        C: db::Backend + LoadConnection,
        C::Backend: OutboxBackend,
    {
        let mut done = 0;
        while done < count {
            let size = fastrand::usize(1..=40).min(count - done);
            let key = |_| fastrand::usize(..keys);
            if self.transaction(conn, exchange, key, size, fastrand::u8(..10) == 0) {
                done += size;
            }
        }
    }

    /// Commits `count` facts in one transaction, about each of `keys` keys in turn. A relay has one
    /// message of a key in flight at a time: with as many keys as facts it can send all at once.
    pub fn commit<C>(&mut self, conn: &mut C, exchange: &str, keys: usize, count: usize)
    where
        C: db::Backend + LoadConnection,
        C::Backend: OutboxBackend,
    {
        assert!(self.transaction(conn, exchange, |n| n % keys, count, false), "commits");
    }

    fn transaction<C>(
        &mut self,
        conn: &mut C,
        exchange: &str,
        key: impl Fn(usize) -> usize,
        size: usize,
        rollback: bool,
    ) -> bool
    where
        C: db::Backend + LoadConnection,
        C::Backend: OutboxBackend,
    {
        let mut after = self.numbers.clone();
        let result: Result<(), EnqueueError> = conn.write(|tx| {
            let drafts = (0..size).map(|n| {
                let key = format!("key-{}", key(n));
                let number = after.entry(key.clone()).or_default();
                *number += 1;
                Draft::of(&Fact::of(&key, *number)).exchange(exchange)
            });
            outbox::enqueue_all(tx, drafts)?;
            if rollback { Err(Error::RollbackTransaction.into()) } else { Ok(()) }
        });
        match result {
            Ok(()) => {
                self.numbers = after;
                true
            }
            Err(error) if rollback => {
                let text = error.to_string();
                assert!(
                    matches!(error, EnqueueError::Database(Error::RollbackTransaction)),
                    "{text}"
                );
                false
            }
            Err(error) => panic!("enqueues: {error}"),
        }
    }
}

impl FromIterator<(String, i64)> for Ledger {
    /// A ledger of what another process has committed: each key with its last number.
    fn from_iter<I: IntoIterator<Item = (String, i64)>>(numbers: I) -> Self {
        Self { numbers: numbers.into_iter().collect() }
    }
}

/// Commits facts without pause until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Ledger>,
}

impl Load {
    /// A thread that commits small transactions over `conn`, a few hundred facts a second.
    pub fn start<C>(mut conn: C, exchange: &str, keys: usize) -> Self
    where
        C: db::Backend + LoadConnection,
        C::Backend: OutboxBackend,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, exchange) = (Arc::clone(&stop), exchange.to_owned());
        let thread = std::thread::spawn(move || {
            let mut ledger = Ledger::new();
            while !stopped.load(Ordering::Relaxed) {
                ledger.produce(&mut conn, &exchange, keys, fastrand::usize(1..=10));
                // A pace: as many as two cores can drain in passing.
                std::thread::sleep(Duration::from_millis(8));
            }
            ledger
        });
        Self { stop, thread }
    }

    /// Ends it; what it has committed.
    #[must_use]
    pub fn finish(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load ran through")
    }
}

/// What came out of a queue so far.
pub struct Arrived {
    exchange: String,
    queue: String,
    /// Kept: a queue can hand out again what was acknowledged right before its consumer went.
    subscription: Option<Box<dyn Subscription>>,
    /// The last number of each key, repeats dropped.
    last: BTreeMap<String, i64>,
    seen: HashSet<String>,
    total: usize,
}

impl Arrived {
    /// Nothing yet; of what `exchange` hands to `queue` whatever the routing key.
    #[must_use]
    pub fn through(exchange: &str, queue: &str) -> Self {
        let (exchange, queue) = (exchange.to_owned(), queue.to_owned());
        Self {
            exchange,
            queue,
            subscription: None,
            last: BTreeMap::new(),
            seen: HashSet::new(),
            total: 0,
        }
    }

    /// Takes everything that is in the queue by now and returns how many there were. From the first
    /// call on the queue is always empty to others.
    ///
    /// # Panics
    /// When a key's facts, repeats dropped, come in another order than they were committed in, or
    /// one is missing between them.
    pub async fn take<B: Broker>(&mut self, corner: &Corner<B>) -> usize {
        let witness = message(&self.exchange, "", "witness");
        let mut lane = corner.broker.open_lane().await.expect("a lane");
        let verdicts = lane.publish(std::slice::from_ref(&witness)).await.expect("settles");
        assert_eq!(verdicts, [Verdict::Confirmed]);
        let (before, witness) = (self.total, witness.id.to_string());
        while self.one(corner).await != witness {}
        self.total -= 1;
        self.seen.remove(&witness);
        self.total - before
    }

    /// Takes the next `count`, waiting for them.
    ///
    /// # Panics
    /// As [`take`](Self::take).
    pub async fn next<B: Broker>(&mut self, corner: &Corner<B>, count: usize) {
        for _ in 0..count {
            self.one(corner).await;
        }
    }

    async fn one<B: Broker>(&mut self, corner: &Corner<B>) -> String {
        let subscription = match &mut self.subscription {
            Some(subscription) => subscription,
            none => {
                none.insert(corner.broker.subscribe(&self.queue, 1_000).await.expect("consumes"))
            }
        };
        let delivery = crate::bounded(subscription.receive()).await.expect("a delivery");
        let id = delivery.message_id.clone().expect("an id");
        self.total += 1;
        if self.seen.insert(id.clone()) && delivery.kind.as_deref() == Some(Fact::KIND) {
            let fact = Fact::from_payload(&delivery.payload);
            let last = self.last.entry(fact.key.clone().expect("a key")).or_default();
            assert_eq!(fact.number, *last + 1, "{fact:?} came after {last}");
            *last = fact.number;
        }
        delivery.acker.ack().await.expect("acknowledged");
        id
    }

    /// How many came again.
    #[must_use]
    pub fn repeats(&self) -> usize {
        self.total - self.seen.len()
    }

    /// How many different messages came.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.seen.len()
    }

    /// Checks that exactly what was committed has arrived, in any number of copies.
    ///
    /// # Panics
    /// When it has not.
    pub fn complete(&self, ledger: &Ledger) {
        assert_eq!(self.last, ledger.numbers, "every committed message arrived, and no other");
        assert_eq!(self.seen.len(), ledger.len(), "each message has one id");
    }
}
