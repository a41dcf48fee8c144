//! A stream of numbered facts through the `relay` program to a queue, and what must be true of it
//! whatever went wrong on the way.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use diesel::{Connection, PgConnection};
use message::MessageId;
use outbox::reader::LogStore;
use outbox::{Draft, EnqueueError};
use transport::rabbitmq::RabbitMq;
use transport::{ExchangeKind, Publisher, Subscriber};

use crate::broker::{Corner, message, rabbitmq};
use crate::events::Fact;
use crate::process::Process;
use crate::services::amqp_url;

const KEYS: i64 = 10;
const CHUNK_ROWS: usize = 200;
/// What one fault may repeat: the chunks in flight.
pub const IN_FLIGHT: usize = 3 * CHUNK_ROWS;

/// An exchange and a queue of its own for the facts of one test.
pub struct Stream {
    /// The corner of the broker.
    pub corner: Corner<RabbitMq>,
    /// Where facts go.
    pub exchange: String,
    /// Where they arrive.
    pub queue: String,
    config: PathBuf,
    seen: Arc<Mutex<Vec<(String, Bytes)>>>,
    receiving: tokio::task::JoinHandle<()>,
}

/// What arrived.
pub struct Arrived {
    /// Each fact's number once, in order of first arrival.
    pub numbers: Vec<i64>,
    /// How many deliveries repeated an earlier one.
    pub repeats: usize,
}

impl Stream {
    /// Declares both.
    pub async fn open() -> Self {
        let corner = Corner::new(rabbitmq());
        let exchange = corner.exchange("facts", ExchangeKind::Fanout).await;
        let queue = corner.queue("facts").await;
        corner.bind(&exchange, &queue, "").await;
        let config = std::env::temp_dir().join(format!("{}.toml", corner.name("relay")));
        let text = format!(
            "[database]\nacquire_timeout = '3s'\nstatement_timeout = '4s'\nlock_timeout = '3s'\n\
             [broker]\nheartbeat = '2s'\npublish_timeout = '4s'\n\
             [relay]\nlease = '5s'\nstandby_poll = '200ms'\npoll_holds = '100ms'\n\
             chunk_rows = {CHUNK_ROWS}\nchunks_in_flight = 3\n"
        );
        std::fs::write(&config, text).expect("settings");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut subscription = corner.broker.subscribe(&queue, 1_000).await.expect("subscribes");
        let into = seen.clone();
        let receiving = tokio::spawn(async move {
            // One that ends takes its last acks with it: it goes on to the end of the test.
            while let Ok(delivery) = subscription.receive().await {
                let id = delivery.message_id.expect("an id");
                into.lock().expect("whole").push((id, delivery.payload));
                delivery.acker.ack().await.expect("acknowledged");
            }
        });
        Self { corner, exchange, queue, config, seen, receiving }
    }

    /// Where the relay's settings are.
    #[must_use]
    pub fn config(&self) -> &str {
        self.config.to_str().expect("UTF-8")
    }

    /// A draft of one fact. Facts whose numbers end alike have one ordering key.
    pub fn fact(&self, number: i64) -> Draft {
        draft(&self.exchange, number)
    }

    /// Enqueues facts in transactions of a few.
    pub fn enqueue(&self, conn: &mut PgConnection, numbers: impl IntoIterator<Item = i64>) {
        let numbers: Vec<i64> = numbers.into_iter().collect();
        for some in numbers.chunks(20) {
            self.try_enqueue(conn, some).expect("enqueues");
        }
    }

    /// Enqueues facts in one transaction.
    ///
    /// # Errors
    /// What `enqueue_all` or the database said.
    pub fn try_enqueue(&self, conn: &mut PgConnection, some: &[i64]) -> Result<(), EnqueueError> {
        let drafts = some.iter().map(|number| self.fact(*number));
        conn.transaction(|tx| outbox::enqueue_all(tx, drafts).map(|_| ()))
    }

    /// A producer that goes on through every outage until it is told to stop, with the same ids until
    /// it knows that they are stored.
    #[must_use]
    pub fn producer(&self, url: &str, first: i64) -> Producer {
        let (url, exchange) = (url.to_owned(), self.exchange.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let failures = Arc::new(AtomicUsize::new(0));
        let (stopped, failed) = (stop.clone(), failures.clone());
        let thread = std::thread::spawn(move || {
            let mut numbers = first..first;
            let mut conn = None;
            while !stopped.load(Ordering::SeqCst) {
                let next = numbers.end;
                let drafts: Vec<(i64, MessageId)> =
                    (next..next + 10).map(|number| (number, MessageId::new())).collect();
                while store(&mut conn, &url, &exchange, &drafts).is_err() {
                    failed.fetch_add(1, Ordering::SeqCst);
                    conn = None;
                    std::thread::sleep(Duration::from_millis(10));
                }
                numbers.end = next + 10;
                // Load, not a flood: what is enqueued must all be counted in the end.
                std::thread::sleep(Duration::from_millis(3));
            }
            numbers
        });
        Producer { stop, failures, thread }
    }

    /// Starts the `relay` program, and waits until it holds the cursor.
    #[must_use]
    pub fn relay(&self, url: &str) -> Process {
        let mut relay = self.waiting_relay(url);
        relay.wait_for("relaying");
        relay
    }

    /// Starts the `relay` program.
    #[must_use]
    pub fn waiting_relay(&self, url: &str) -> Process {
        let env = [("RELAY_DATABASE_URL", url), ("RELAY_AMQP_URL", &amqp_url())];
        Process::start("relay", &["run", "--config", self.config()], &env)
    }

    /// Waits until everything that is committed has been handed on.
    pub async fn drained(conn: &mut PgConnection) {
        let mut drained = async || conn.pending("relay").is_ok_and(|pending| pending == 0);
        crate::eventually("the outbox is drained", &mut drained).await;
    }

    /// Waits until so many messages, repeats included, have arrived.
    pub async fn reaches(&self, count: usize) {
        crate::eventually("enough messages arrive", async || self.count() >= count).await;
    }

    /// Stops the relay, which must have lived through everything, and returns what it printed.
    pub fn stop(relay: &mut Process) -> String {
        relay.terminate();
        assert!(relay.finish().success(), "{}", relay.output);
        assert!(!relay.output.contains("panicked"), "{}", relay.output);
        relay.output.clone()
    }

    /// How many messages, repeats included, have arrived since the last [`arrived`](Self::arrived).
    pub fn count(&self) -> usize {
        self.seen.lock().expect("whole").len()
    }

    /// Everything that has arrived, with the order of each key checked once repeats are dropped.
    pub async fn arrived(&self) -> Arrived {
        // Behind everything that is in the queue by now.
        let end = message(&self.exchange, "", "end");
        let id = end.id.to_string();
        let mut lane = self.corner.broker.open_lane().await.expect("a lane");
        lane.publish(&[end]).await.expect("published");
        let mut ended =
            async || self.seen.lock().expect("whole").iter().any(|(seen, _)| *seen == id);
        crate::eventually("the last message arrives", &mut ended).await;
        let mut seen = std::mem::take(&mut *self.seen.lock().expect("whole"));
        seen.retain(|(seen, _)| *seen != id);
        let total = seen.len();
        let (mut ids, mut last) = (HashSet::new(), HashMap::<String, i64>::new());
        let mut numbers = Vec::new();
        for (id, payload) in seen {
            let fact = Fact::from_payload(&payload);
            if ids.insert(id) {
                let last = last.entry(fact.key.expect("a key")).or_default();
                assert!(fact.number > *last, "{} came after {last}", fact.number);
                *last = fact.number;
                numbers.push(fact.number);
            }
        }
        Arrived { repeats: total - numbers.len(), numbers }
    }

    /// Removes what was declared.
    pub async fn close(self) {
        let _ = std::fs::remove_file(&self.config);
        self.receiving.abort();
        self.corner.clean().await;
    }
}

/// A thread that enqueues.
pub struct Producer {
    stop: Arc<AtomicBool>,
    failures: Arc<AtomicUsize>,
    thread: JoinHandle<Range<i64>>,
}

/// What a producer did.
#[derive(Debug)]
pub struct Produced {
    /// The facts that are stored.
    pub numbers: Range<i64>,
    /// How often it could not tell, or was told no.
    pub failures: usize,
}

impl Producer {
    /// Waits until it has been refused a few times.
    pub async fn refused(&self) {
        let mut refused = async || self.failures.load(Ordering::SeqCst) >= 5;
        crate::eventually("the producer is refused", &mut refused).await;
    }

    /// Waits until what it is at is stored.
    #[must_use]
    pub fn stop(self) -> Produced {
        self.stop.store(true, Ordering::SeqCst);
        let numbers = self.thread.join().expect("produces");
        Produced { numbers, failures: self.failures.load(Ordering::SeqCst) }
    }
}

/// Stores facts once, whatever became of the attempt before.
fn store(
    conn: &mut Option<PgConnection>,
    url: &str,
    exchange: &str,
    drafts: &[(i64, MessageId)],
) -> Result<(), String> {
    if conn.is_none() {
        *conn = Some(PgConnection::establish(url).map_err(|error| error.to_string())?);
    }
    let Some(conn) = conn else { return Err("no connection".to_owned()) };
    let drafts = drafts.iter().map(|(number, id)| draft(exchange, *number).id(*id));
    match conn.transaction(|tx| outbox::enqueue_all(tx, drafts).map(|_| ())) {
        Ok(()) | Err(EnqueueError::AlreadyEnqueued { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn draft(exchange: &str, number: i64) -> Draft {
    Draft::of(&Fact::of(&format!("key-{}", number % KEYS), number)).exchange(exchange)
}

impl Arrived {
    /// Exactly these facts arrived, with at most so many repeats.
    pub fn are(&self, committed: impl IntoIterator<Item = i64>, most_repeats: usize) {
        self.include(committed.into_iter().collect(), &BTreeSet::new(), most_repeats);
    }

    /// These facts arrived; others did not, but for some of `allowed`.
    pub fn include(&self, committed: BTreeSet<i64>, allowed: &BTreeSet<i64>, most_repeats: usize) {
        let seen: BTreeSet<i64> = self.numbers.iter().copied().collect();
        assert_eq!(seen.len(), self.numbers.len(), "one fact under two message ids");
        let lost: Vec<_> = committed.difference(&seen).collect();
        assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), committed.len());
        let ghosts: Vec<_> = seen.difference(&committed).filter(|n| !allowed.contains(n)).collect();
        assert!(ghosts.is_empty(), "never committed: {ghosts:?}");
        println!("{} repeats", self.repeats);
        assert!(self.repeats <= most_repeats, "{} repeats", self.repeats);
    }
}
