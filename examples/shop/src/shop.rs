use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use db::Db;
use diesel::SqliteConnection;
use diesel::connection::SimpleConnection;
use inbox::{Builder, Consumer, Inbox, Settings};
use transport::memory::MemoryBroker;
use transport::{Binding, Exchange, ExchangeKind, Queue, Topology};

/// Where events go unless they say otherwise.
const EXCHANGE: &str = "events";

/// No table but the stock has a constraint that would refuse something twice: that is left to the inbox.
const TABLES: &str = "
    CREATE TABLE orders (id TEXT NOT NULL, customer TEXT NOT NULL, item TEXT NOT NULL, quantity BIGINT NOT NULL, cents BIGINT NOT NULL);
    CREATE TABLE stock (item TEXT PRIMARY KEY, remaining BIGINT NOT NULL);
    CREATE TABLE reservations (order_id TEXT NOT NULL, item TEXT NOT NULL, quantity BIGINT NOT NULL);
    CREATE TABLE refusals (order_id TEXT NOT NULL, item TEXT NOT NULL);
    CREATE TABLE balances (customer TEXT PRIMARY KEY, cents BIGINT NOT NULL);
    CREATE TABLE payments (order_id TEXT NOT NULL, cents BIGINT NOT NULL);
    CREATE TABLE invoice_numbers (last BIGINT NOT NULL);
    INSERT INTO invoice_numbers VALUES (0);
    CREATE TABLE invoices (number BIGINT NOT NULL, order_id TEXT NOT NULL, cents BIGINT NOT NULL);
    CREATE TABLE mails (order_id TEXT NOT NULL);
    CREATE TABLE shipments (order_id TEXT NOT NULL, tracking TEXT NOT NULL);
";

diesel::table! { orders (id) { id -> Text, customer -> Text, item -> Text, quantity -> BigInt, cents -> BigInt, } }
diesel::table! { stock (item) { item -> Text, remaining -> BigInt, } }
diesel::table! { reservations (order_id) { order_id -> Text, item -> Text, quantity -> BigInt, } }
diesel::table! { refusals (order_id) { order_id -> Text, item -> Text, } }
diesel::table! { balances (customer) { customer -> Text, cents -> BigInt, } }
diesel::table! { payments (order_id) { order_id -> Text, cents -> BigInt, } }
diesel::table! { invoice_numbers (last) { last -> BigInt, } }
diesel::table! { invoices (number) { number -> BigInt, order_id -> Text, cents -> BigInt, } }
diesel::table! { mails (order_id) { order_id -> Text, } }
diesel::table! { shipments (order_id) { order_id -> Text, tracking -> Text, } }

/// The shop's database and its broker.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) db: Db<SqliteConnection>,
    pub(crate) broker: MemoryBroker,
}

impl Shop {
    pub(crate) async fn open(path: &str) -> Result<Self> {
        let db = Db::<SqliteConnection>::connect(path, db::Settings::default()).await?;
        db.call(migrations::run).await?;
        db.call(|conn| conn.batch_execute(TABLES)).await?;
        let broker = MemoryBroker::new();
        // For the books: every event that was enqueued, by its id.
        broker.record_published();
        let exchange = Exchange { name: EXCHANGE.to_owned(), kind: ExchangeKind::Topic };
        broker.declare_exchange(&exchange).await?;
        Ok(Self { db, broker })
    }

    /// A consumer with a queue of its own for one kind of event.
    pub(crate) async fn consumer(
        &self,
        consumer: Consumer<'static>,
        kind: &str,
    ) -> Result<Builder<SqliteConnection>> {
        let queue = consumer.0;
        self.broker.declare_queue(&Queue::new(queue)).await?;
        let (exchange, routing_key) = (EXCHANGE.to_owned(), kind.to_owned());
        self.broker.bind(&Binding { exchange, queue: queue.to_owned(), routing_key }).await?;
        let mut settings = Settings::default();
        // A story is told in seconds. But what waits for a person is tried again after the longest pause: if that is
        // shorter than a round of tries takes on a busy machine, there is always one to be tried.
        settings.backoff = Duration::from_millis(10);
        settings.backoff_max = Duration::from_millis(500);
        settings.effects.deadline = Duration::from_millis(500);
        settings.effects.grace = Duration::from_millis(200);
        settings.effects.ask_pause = Duration::from_millis(20);
        settings.effects.ask_pause_max = Duration::from_millis(100);
        let broker = Arc::new(self.broker.clone());
        Ok(Inbox::new(consumer, self.db.clone(), broker, queue).settings(settings))
    }
}
