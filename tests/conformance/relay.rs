//! What the relay does with each ending a message can have, on each store, against the in-process
//! broker: its script says what a broker does only now and then.

use std::sync::Arc;
use std::time::Duration;

use db::Db;
use diesel::connection::LoadConnection;
use diesel::{PgConnection, RunQueryDsl, SqliteConnection, sql_query};
use message::Message;
use outbox::reader::{Claim, LogStore};
use outbox::{Draft, OutboxBackend};
use relay::{Backoff, Drained, Relay, RelayError, Settings};
use support::database::Database;
use support::events::Fact;
use tokio::sync::oneshot;
use transport::memory::MemoryBroker;
use transport::{
    Binding, Exchange, ExchangeKind, Poison, Queue, QueueKind, Refusal, Topology, Verdict,
};

trait Store: LogStore + LoadConnection<Backend: OutboxBackend> {
    fn database() -> Database;
    fn pool(database: &Database) -> Db<Self>;
    /// The number a query gives as `n`.
    fn number(&mut self, sql: &str) -> diesel::QueryResult<i64>;
}

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

impl Store for PgConnection {
    fn database() -> Database {
        Database::postgres()
    }
    fn pool(database: &Database) -> Db<Self> {
        database.pg_pool(4)
    }
    fn number(&mut self, sql: &str) -> diesel::QueryResult<i64> {
        Ok(sql_query(sql).get_result::<Number>(self)?.n)
    }
}

impl Store for SqliteConnection {
    fn database() -> Database {
        Database::sqlite()
    }
    fn pool(database: &Database) -> Db<Self> {
        database.sqlite_pool(4)
    }
    fn number(&mut self, sql: &str) -> diesel::QueryResult<i64> {
        Ok(sql_query(sql).get_result::<Number>(self)?.n)
    }
}

/// An outbox, a broker with one bound queue, and a relay between them.
struct Path<C: Store> {
    db: Db<C>,
    broker: MemoryBroker,
    _database: Database,
}

impl<C: Store> Path<C> {
    async fn new() -> Self {
        let database = C::database();
        let broker = MemoryBroker::new();
        broker.record_published();
        let exchange = Exchange { name: "events".into(), kind: ExchangeKind::Fanout };
        broker.declare_exchange(&exchange).await.expect("declares");
        broker
            .declare_queue(&Queue { kind: QueueKind::Classic, ..Queue::new("all") })
            .await
            .expect("declares");
        let binding =
            Binding { exchange: "events".into(), queue: "all".into(), routing_key: String::new() };
        broker.bind(&binding).await.expect("binds");
        Self { db: C::pool(&database), broker, _database: database }
    }

    fn settings() -> Settings {
        let mut settings = Settings::default();
        settings.lease = Duration::from_secs(60);
        settings.chunk_rows = 7;
        settings.hold_backoff =
            Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(1) };
        settings.max_attempts = 3;
        settings
    }

    fn relay(&self) -> Relay<C> {
        let broker = self.broker.clone().with_publish_timeout(Duration::from_secs(20));
        Relay::new(self.db.clone(), Arc::new(broker))
            .settings(Self::settings())
            .build()
            .expect("valid")
    }

    async fn run_once(&self) -> Drained {
        support::bounded(self.relay().run_once()).await.expect("drains")
    }

    async fn enqueue(&self, drafts: Vec<Draft>) {
        self.db
            .call(|conn| conn.write(|tx| outbox::enqueue_all(tx, drafts)))
            .await
            .expect("enqueues");
    }

    async fn enqueue_facts(&self, key: &str, numbers: std::ops::RangeInclusive<i64>) {
        self.enqueue(numbers.map(|n| Draft::of(&Fact::of(key, n))).collect()).await;
    }

    /// What reached the broker, as `key-number`.
    fn published(&self) -> Vec<String> {
        self.broker.published().into_iter().map(|message| message.operation).collect()
    }

    async fn sql(&self, sql: &str) {
        let sql = sql.to_owned();
        self.db.call(move |conn| conn.batch_execute(&sql)).await.expect("runs");
    }

    async fn count(&self, from: &str) -> i64 {
        let sql = format!("SELECT count(*) AS n FROM {from}");
        self.db.call(move |conn| conn.number(&sql)).await.expect("counts")
    }

    async fn held(&self) -> Vec<(String, u32)> {
        let due = self.db.call(|conn| {
            conn.batch_execute(
                "UPDATE outbox_holds SET not_before = held_at WHERE reason <> 'delayed'",
            )?;
            conn.due("relay", outbox::reader::ReadLimit { rows: 100, bytes: 1 << 20 })
        });
        let due = due.await.expect("reads");
        due.into_iter().map(|due| (due.reason.as_str().to_owned(), due.attempts)).collect()
    }
}

fn refuse(
    operation: &'static str,
    verdict: Verdict,
) -> impl Fn(&Message) -> Option<Verdict> + Send + Sync {
    move |message| (message.operation == operation).then(|| verdict.clone())
}

fn unroutable() -> Verdict {
    Verdict::Refused(Refusal::Unroutable { exchange: "events".into(), routing_key: "r".into() })
}

async fn everything_committed_arrives_in_order_of_its_key<C: Store>() {
    let path = Path::<C>::new().await;
    path.enqueue_facts("a", 1..=20).await;
    path.enqueue_facts("b", 1..=20).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 40, held: 0 });
    let published = path.published();
    for key in ["a", "b"] {
        let of_key: Vec<_> =
            published.iter().filter(|operation| operation.starts_with(key)).cloned().collect();
        assert_eq!(of_key, (1..=20).map(|n| format!("{key}-{n}")).collect::<Vec<_>>());
    }
    // And once: the cursor is behind them.
    assert_eq!(path.run_once().await, Drained { confirmed: 0, held: 0 });
    assert_eq!(path.broker.depth("all"), 40);
}

async fn a_refused_message_is_held_and_its_key_waits_behind_it<C: Store>() {
    let path = Path::<C>::new().await;
    path.broker.script(refuse("a-1", unroutable()));
    path.enqueue_facts("a", 1..=1).await;
    path.enqueue_facts("b", 1..=2).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 2, held: 1 });
    // Commits after the refusal: must not overtake it.
    path.enqueue_facts("a", 2..=4).await;
    path.enqueue_facts("b", 3..=3).await;
    let drained = path.run_once().await;
    assert_eq!((drained.confirmed, drained.held), (1, 3), "{:?}", path.published());
    assert_eq!(path.held().await, [("unroutable".to_owned(), 2)]);
    path.broker.clear_script();
    path.run_once().await;
    let of_a: Vec<_> =
        path.published().into_iter().filter(|operation| operation.starts_with('a')).collect();
    assert_eq!(of_a, ["a-1", "a-2", "a-3", "a-4"]);
    // The key is free again.
    path.enqueue_facts("a", 5..=5).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 1, held: 0 });
    assert!(path.held().await.is_empty());
}

async fn after_its_attempts_a_refused_message_is_dead_and_stays<C: Store>() {
    let path = Path::<C>::new().await;
    path.broker.script(refuse("keyless-1", Verdict::Refused(Refusal::Nacked)));
    path.enqueue(vec![Draft::of(&Fact::keyless(1)), Draft::of(&Fact::keyless(2))]).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 1, held: 1 });
    for attempts in 1..3 {
        assert_eq!(path.held().await, [("nacked".to_owned(), attempts)]);
        path.run_once().await;
    }
    assert!(path.held().await.is_empty(), "dead ones are not due");
    path.broker.clear_script();
    let dead =
        path.count("outbox_holds WHERE state = 'dead' AND attempts = 3 AND last_error <> ''").await;
    assert_eq!(dead, 1);
    assert_eq!(path.run_once().await, Drained { confirmed: 0, held: 0 });
    assert_eq!(path.published(), ["keyless-2"]);
}

async fn a_poison_message_is_dead_at_once_and_alone<C: Store>() {
    let path = Path::<C>::new().await;
    let poison =
        Verdict::Poison(Poison::TooLarge { text: "PRECONDITION_FAILED - message size".into() });
    path.broker.script(refuse("keyless-3", poison));
    path.enqueue((1..=10).map(|n| Draft::of(&Fact::keyless(n))).collect()).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 9, held: 1 });
    assert!(path.held().await.is_empty());
    assert_eq!(path.run_once().await, Drained { confirmed: 0, held: 0 });
}

async fn a_missing_exchange_holds_its_messages_until_it_is_there<C: Store>() {
    let path = Path::<C>::new().await;
    let lost = Draft::of(&Fact::keyless(1)).exchange("nowhere");
    path.enqueue(vec![lost, Draft::of(&Fact::keyless(2))]).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 1, held: 1 });
    assert_eq!(path.held().await, [("exchange_missing".to_owned(), 1)]);
    let exchange = Exchange { name: "nowhere".into(), kind: ExchangeKind::Fanout };
    path.broker.declare_exchange(&exchange).await.expect("declares");
    let binding =
        Binding { exchange: "nowhere".into(), queue: "all".into(), routing_key: String::new() };
    path.broker.bind(&binding).await.expect("binds");
    path.run_once().await;
    assert_eq!(path.broker.depth("all"), 2);
}

async fn an_unavailable_broker_costs_no_attempt<C: Store>() {
    let path = Path::<C>::new().await;
    path.enqueue_facts("a", 1..=5).await;
    path.broker.disconnect();
    let error = path.relay().run_once().await.expect_err("unavailable");
    assert!(matches!(error, RelayError::Unavailable(_)), "{error}");
    path.broker.reconnect();
    path.broker.fail_next_publishes(1);
    let error = path.relay().run_once().await.expect_err("unavailable");
    assert!(matches!(error, RelayError::Unavailable(_)), "{error}");
    assert_eq!(path.count("outbox_holds").await, 0);
    assert_eq!(path.run_once().await, Drained { confirmed: 5, held: 0 });
    assert_eq!(path.published(), ["a-1", "a-2", "a-3", "a-4", "a-5"]);
}

async fn lost_confirms_repeat_the_same_messages<C: Store>() {
    let path = Path::<C>::new().await;
    path.enqueue_facts("a", 1..=3).await;
    path.broker.lose_confirms(1);
    path.relay().run_once().await.expect_err("unavailable");
    assert_eq!(path.run_once().await, Drained { confirmed: 3, held: 0 });
    let ids: Vec<_> = path.broker.published().into_iter().map(|message| message.id).collect();
    assert_eq!(ids.len(), 6);
    assert_eq!(ids[..3], ids[3..], "the same ids on every attempt");
}

async fn a_delayed_message_comes_when_it_is_due<C: Store>() {
    let path = Path::<C>::new().await;
    let hour = Duration::from_secs(3600);
    path.enqueue(vec![
        Draft::of(&Fact::of("a", 1)).deliver_after(hour),
        Draft::of(&Fact::of("a", 2)),
    ])
    .await;
    assert_eq!(path.run_once().await, Drained { confirmed: 1, held: 1 });
    assert_eq!(path.published(), ["a-2"]);
    path.sql("UPDATE outbox_holds SET not_before = held_at").await;
    path.run_once().await;
    assert_eq!(path.published(), ["a-2", "a-1"]);
}

async fn two_relays_do_not_work_one_cursor<C: Store>() {
    let path = Path::<C>::new().await;
    let claim = path
        .db
        .call(|conn| conn.claim("relay", "another", Duration::from_secs(60)))
        .await
        .expect("claims");
    let Claim::Taken(lease, _) = claim else { panic!("held") };
    let error = path.relay().run_once().await.expect_err("held");
    assert!(matches!(&error, RelayError::Held { owner, .. } if owner == "another"), "{error}");
    let released = path.db.call(move |conn| conn.release(&lease)).await.expect("writes");
    assert_eq!(released, outbox::reader::Advance::Done);
    path.enqueue_facts("a", 1..=1).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 1, held: 0 });
}

async fn a_holder_that_lost_its_lease_advances_nothing<C: Store>() {
    let path = Path::<C>::new().await;
    path.enqueue_facts("a", 1..=1).await;
    // While the broker judges the message, another relay takes the cursor.
    let db = path.db.clone();
    let runtime = tokio::runtime::Handle::current();
    path.broker.script(move |_| {
        let db = db.clone();
        let steal = async move {
            db.call(|conn| {
                conn.batch_execute("UPDATE outbox_cursors SET epoch = epoch + 1, owner = 'thief'")
            })
            .await
        };
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(steal)).join().expect("ends"))
            .expect("steals");
        None
    });
    let error = path.relay().run_once().await.expect_err("lost");
    assert!(matches!(error, RelayError::LeaseLost { .. }), "{error}");
    let pending = path.db.call(|conn| conn.pending("relay")).await.expect("counts");
    assert_eq!(pending, 1, "the successor has it still to do");
}

async fn shutdown_settles_what_is_in_flight_and_gives_the_lease_up<C: Store>() {
    let path = Path::<C>::new().await;
    path.enqueue_facts("a", 1..=50).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let stop = std::sync::Mutex::new(Some(stop));
    // The first message to arrive asks for the shutdown.
    path.broker.script(move |_| {
        drop(stop.lock().expect("whole").take());
        None
    });
    let relay = path.relay();
    support::bounded(relay.run(async { drop(stopped.await) })).await.expect("stops");
    let pending = path.db.call(|conn| conn.pending("relay")).await.expect("counts");
    assert_eq!(
        path.broker.depth("all") as i64 + pending,
        50,
        "what was published is behind the cursor"
    );
    let claim = path
        .db
        .call(|conn| conn.claim("relay", "next", Duration::from_secs(1)))
        .await
        .expect("claims");
    assert!(matches!(claim, Claim::Taken(..)), "{claim:?}");
}

async fn a_running_relay_outlives_the_broker<C: Store>() {
    let path = Path::<C>::new().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = path.relay();
    let running = tokio::spawn(async move { relay.run(async { drop(stopped.await) }).await });
    for round in 0..3 {
        path.enqueue_facts("a", round * 10 + 1..=round * 10 + 10).await;
        let expected = (round as usize + 1) * 10;
        support::eventually("the round has arrived", async || path.broker.depth("all") >= expected)
            .await;
        path.broker.disconnect();
        path.enqueue_facts("b", round..=round).await;
        path.broker.reconnect();
    }
    support::eventually("all has arrived", async || path.broker.depth("all") == 33).await;
    stop.send(()).expect("runs");
    support::bounded(running).await.expect("ends").expect("stops");
    assert_eq!(path.count("outbox_holds").await, 0);
}

async fn a_schema_that_is_not_there_is_named<C: Store>() {
    let path = Path::<C>::new().await;
    path.db
        .call(|conn| Ok::<_, migrations::MigrationFailed>(migrations::revert_all(conn)?.len()))
        .await
        .expect("reverts");
    let error = path.relay().run(std::future::pending()).await.expect_err("refused");
    assert!(matches!(error, RelayError::Schema(migrations::SchemaError::Missing)), "{error}");
}

macro_rules! on_every_store {
    ($($scenario:ident),+ $(,)?) => {
        mod postgres { $(#[tokio::test(flavor = "multi_thread")] async fn $scenario() {
            super::$scenario::<diesel::PgConnection>().await;
        })+ }
        mod sqlite { $(#[tokio::test(flavor = "multi_thread")] async fn $scenario() {
            super::$scenario::<diesel::SqliteConnection>().await;
        })+ }
    };
}

on_every_store!(
    everything_committed_arrives_in_order_of_its_key,
    a_refused_message_is_held_and_its_key_waits_behind_it,
    after_its_attempts_a_refused_message_is_dead_and_stays,
    a_poison_message_is_dead_at_once_and_alone,
    a_missing_exchange_holds_its_messages_until_it_is_there,
    an_unavailable_broker_costs_no_attempt,
    lost_confirms_repeat_the_same_messages,
    a_delayed_message_comes_when_it_is_due,
    two_relays_do_not_work_one_cursor,
    a_holder_that_lost_its_lease_advances_nothing,
    shutdown_settles_what_is_in_flight_and_gives_the_lease_up,
    a_running_relay_outlives_the_broker,
    a_schema_that_is_not_there_is_named,
);
