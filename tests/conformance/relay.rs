//! What the relay does with each ending a message can have, on each store, against the in-process
//! broker: its script says what a broker does only now and then.

use std::sync::Arc;
use std::time::Duration;

use db::Db;
use diesel::connection::LoadConnection;
use diesel::{PgConnection, RunQueryDsl, SqliteConnection, sql_query};
use message::Message;
use outbox::admin::AdminStore;
use outbox::{Draft, OutboxBackend};
use relay::{Backoff, Drained, Relay, Settings};
use support::database::Database;
use support::events::Fact;
use transport::memory::MemoryBroker;
use transport::{Binding, Exchange, ExchangeKind, Queue, QueueKind, Refusal, Topology, Verdict};

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

mod outages;
mod replayed;
mod retention;
mod verdicts;

trait Store: AdminStore + LoadConnection<Backend: OutboxBackend> {
    /// Moves every hold's time four hours back.
    const EARLIER: &str;
    /// Makes every message four hours older.
    const OLDER: &str;
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
    const EARLIER: &str = "UPDATE outbox_holds SET not_before = not_before - interval '4 hours'";
    const OLDER: &str = "UPDATE outbox_messages SET created_at = created_at - interval '4 hours'";

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
    const EARLIER: &str = "UPDATE outbox_holds SET not_before = not_before - 14400000000";
    const OLDER: &str = "UPDATE outbox_messages SET created_at = created_at - 14400000000";

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
        // How often one run tries what is held depends on how long it takes: the wait is a millisecond.
        settings.max_attempts = 1_000;
        settings
    }

    fn relay(&self) -> Relay<C> {
        self.relay_with(Self::settings())
    }

    fn relay_with(&self, settings: Settings) -> Relay<C> {
        let broker = self.broker.clone().with_publish_timeout(Duration::from_secs(20));
        Relay::new(self.db.clone(), Arc::new(broker)).settings(settings).build().expect("valid")
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
