//! Facts that flow from an outbox through a relay into a queue, and the proof that they did: all of
//! them, in the order of their key, with few repeats.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use db::Db;
use diesel::sql_types::{BigInt, Integer, Nullable, Text};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use outbox::Draft;
use outbox::reader::LogStore;
use relay::{Backoff, Relay, RelayError, Settings, Status};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use transport::rabbitmq::{RabbitMq, RabbitSettings};
use transport::{
    Binding, Delivery, Exchange, ExchangeKind, Publisher, Subscriber, Topology, Verdict,
};

use crate::broker::{message, operation};
use crate::database::Database;
use crate::events::Fact;

/// Most rows in one of the relay's chunks.
pub const CHUNK_ROWS: u32 = 200;
/// Most messages that one outage can repeat: what is in flight.
pub const IN_FLIGHT: usize = CHUNK_ROWS as usize * 3;
/// Lanes of the relay, which is how many connections it holds.
pub const LANES: usize = 4;

const WITNESS: &str = "witness-";

/// An outbox on PostgreSQL with a record of what was committed to it.
pub struct Flow {
    /// The database.
    pub database: Database,
    /// A connection for the test's own statements.
    pub conn: PgConnection,
    committed: BTreeMap<String, i64>,
}

/// A row of `outbox_holds`.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
#[expect(missing_docs, reason = "the columns")]
pub struct Held {
    #[diesel(sql_type = BigInt)]
    pub seq: i64,
    #[diesel(sql_type = Nullable<Text>)]
    pub ordering_key: Option<String>,
    #[diesel(sql_type = Text)]
    pub state: String,
    #[diesel(sql_type = Text)]
    pub reason: String,
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    #[diesel(sql_type = Text)]
    pub last_error: String,
}

impl Flow {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> Self {
        let database = Database::postgres();
        let conn = database.pg();
        Self { database, conn, committed: BTreeMap::new() }
    }

    /// Commits `count` facts in one transaction, in turn over `keys` keys that begin with `name`.
    pub fn commit(&mut self, name: &str, keys: usize, count: usize, to: impl Fn(Draft) -> Draft) {
        let committed = &mut self.committed;
        let drafts = (0..count).map(|n| {
            let key = format!("{name}-{}", n % keys);
            let number = committed.entry(key.clone()).or_default();
            *number += 1;
            to(Draft::of(&Fact::of(&key, *number)))
        });
        self.conn.transaction(|tx| outbox::enqueue_all(tx, drafts)).expect("enqueues");
    }

    /// The last number committed for each key that begins with `name`.
    #[must_use]
    pub fn committed(&self, name: &str) -> BTreeMap<String, i64> {
        let prefix = format!("{name}-");
        let mine = self.committed.iter().filter(|(key, _)| key.starts_with(&prefix));
        mine.map(|(key, last)| (key.clone(), *last)).collect()
    }

    /// How many rows the cursor has not passed.
    pub fn pending(&mut self) -> i64 {
        self.conn.pending("relay").expect("counts")
    }

    /// What is held, in the order of the log.
    pub fn held(&mut self) -> Vec<Held> {
        sql_query(
            "SELECT seq, ordering_key, state, reason, attempts, last_error FROM outbox_holds ORDER BY seq",
        )
        .load(&mut self.conn)
        .expect("reads")
    }

    /// Waits until the cursor has passed every row.
    pub async fn passed(&mut self) {
        crate::eventually("the cursor has passed every row", async || self.pending() == 0).await;
    }

    /// Waits until the cursor has passed every row and nothing is held.
    pub async fn published(&mut self) {
        crate::eventually("everything is published", async || {
            self.pending() == 0 && self.held().is_empty()
        })
        .await;
    }

    /// A relay in this process, from this outbox to `amqp_url`.
    pub fn relay(&self, amqp_url: &str) -> Running {
        self.relay_with(&broker(amqp_url), settings())
    }

    /// A pool whose connections are waited for no longer than the lease allows.
    #[must_use]
    pub fn pool(&self) -> Db<PgConnection> {
        let mut settings = db::Settings::default().with_pool_size(4);
        settings.acquire_timeout = Duration::from_secs(3);
        settings.lock_timeout = Duration::from_secs(3);
        Db::open(&self.database.url, settings).expect("opens")
    }

    /// The same with other settings.
    pub fn relay_with(&self, broker: &RabbitSettings, settings: Settings) -> Running {
        // What it says is shown when the test fails.
        let _ = tracing_subscriber::fmt()
            .with_env_filter("info,lapin=error")
            .with_test_writer()
            .try_init();
        let publisher = Arc::new(RabbitMq::new(broker).expect("valid"));
        let relay =
            Relay::new(self.pool(), publisher.clone()).settings(settings).build().expect("valid");
        let status = relay.status();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move { relay.run(async { drop(stopped.await) }).await });
        Running { publisher, status, stop, task }
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

/// Deadlines short enough to wait for.
#[must_use]
pub fn broker(amqp_url: &str) -> RabbitSettings {
    let mut settings = RabbitSettings::new(amqp_url);
    settings.heartbeat = Duration::from_secs(2);
    settings.connect_timeout = Duration::from_secs(3);
    settings.publish_timeout = Duration::from_secs(3);
    settings
}

/// Small chunks, so that faults fall between them, and short waits.
#[must_use]
pub fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.lease = Duration::from_secs(10);
    settings.lanes = LANES;
    settings.chunk_rows = CHUNK_ROWS;
    settings.poll_holds = Duration::from_millis(50);
    settings.hold_backoff =
        Backoff { first: Duration::from_millis(100), longest: Duration::from_millis(400) };
    settings.max_attempts = 1_000;
    settings
}

/// A relay at work.
pub struct Running {
    /// Its way to the broker.
    pub publisher: Arc<RabbitMq>,
    /// What it is at.
    pub status: Status,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RelayError>>,
}

impl Running {
    /// Asks it to stop and sees that it was still at work.
    pub async fn stop(self) {
        assert!(!self.task.is_finished(), "the relay has ended by itself");
        self.stop.send(()).expect("runs");
        crate::bounded(self.task).await.expect("ends").expect("stops");
        Publisher::close(&*self.publisher).await;
    }
}

/// What has arrived in one queue. Fails where a fact comes before an earlier one of its key.
#[derive(Default)]
pub struct Arrived {
    /// The last number of each key.
    pub last: BTreeMap<String, i64>,
    /// Facts that had come before and were published again. What the broker delivers again because an
    /// acknowledgement was lost is not counted.
    pub repeats: usize,
}

impl Arrived {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one fact in.
    pub fn see(&mut self, delivery: &Delivery) {
        let fact = Fact::from_payload(&delivery.payload);
        let key = fact.key.clone().expect("a key");
        let last = self.last.entry(key).or_default();
        if fact.number <= *last {
            self.repeats += usize::from(!delivery.redelivered);
            return;
        }
        assert_eq!(fact.number, *last + 1, "{fact:?} came after {last}");
        *last = fact.number;
    }

    /// Takes out of a queue what is in it, up to a witness message sent last.
    pub async fn drain(&mut self, broker: &RabbitMq, queue: &str) {
        let exchange = format!("{queue}-witness");
        let declared = Exchange { name: exchange.clone(), kind: ExchangeKind::Fanout };
        broker.declare_exchange(&declared).await.expect("declares");
        let binding = Binding {
            exchange: exchange.clone(),
            queue: queue.to_owned(),
            routing_key: String::new(),
        };
        broker.bind(&binding).await.expect("binds");
        let mut lane = broker.open_lane().await.expect("a lane");
        // An earlier one may come again.
        let witness = format!("{WITNESS}{}", uuid::Uuid::now_v7());
        let verdicts = lane.publish(&[message(&exchange, "", &witness)]).await.expect("settled");
        assert_eq!(verdicts, [Verdict::Confirmed]);
        broker.delete_exchange(&exchange).await.expect("deletes");
        self.take(broker, queue, |arrived, delivery| {
            let operation = operation(delivery);
            if !operation.starts_with(WITNESS) {
                arrived.see(delivery);
            }
            operation == witness
        })
        .await;
    }

    /// Takes facts out of a queue until everything in `committed` has come.
    pub async fn until(
        &mut self,
        broker: &RabbitMq,
        queue: &str,
        committed: &BTreeMap<String, i64>,
    ) {
        if self.last != *committed {
            self.take(broker, queue, |arrived, delivery| {
                arrived.see(delivery);
                arrived.last == *committed
            })
            .await;
        }
    }

    /// Takes the `count` facts that are in a queue which takes no witness.
    pub async fn first(&mut self, broker: &RabbitMq, queue: &str, count: usize) {
        let mut left = count;
        self.take(broker, queue, |arrived, delivery| {
            arrived.see(delivery);
            left -= 1;
            left == 0
        })
        .await;
    }

    async fn take(
        &mut self,
        broker: &RabbitMq,
        queue: &str,
        mut is_last: impl FnMut(&mut Self, &Delivery) -> bool,
    ) {
        let mut subscription = broker.subscribe(queue, 500).await.expect("consumes");
        crate::bounded(async {
            loop {
                let delivery = subscription.receive().await.expect("a delivery");
                let last = is_last(self, &delivery);
                delivery.acker.ack().await.expect("acknowledged");
                if last {
                    return;
                }
            }
        })
        .await;
    }
}
