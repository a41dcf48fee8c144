use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use db::Db;
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, RunQueryDsl, sql_query};
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ConnectionProperties, ExchangeKind};
use transport::Publisher;
use transport::rabbitmq::{RabbitMq, RabbitSettings};
use url::Url;

/// Payload of one message.
pub const PAYLOAD_BYTES: usize = 256;
/// Most rows written in one transaction.
const PIECE: usize = 100_000;

/// A database and a durable quorum queue for one bench. [`remove`](Fixture::remove) cleans up.
pub struct Fixture {
    name: String,
    admin_url: String,
    /// The database.
    pub database_url: String,
    /// The broker.
    pub amqp_url: String,
    channel: Channel,
}

impl Fixture {
    /// Makes them where `DATABASE_URL` and `AMQP_URL` point.
    ///
    /// # Errors
    /// When a service is missing or refuses.
    pub async fn new() -> Result<Self> {
        let hint = "is not set: run `cargo xtask bench`, which starts the services";
        let admin_url =
            std::env::var("DATABASE_URL").with_context(|| format!("DATABASE_URL {hint}"))?;
        let amqp_url = std::env::var("AMQP_URL").with_context(|| format!("AMQP_URL {hint}"))?;
        let name = format!("bench_{}", uuid::Uuid::now_v7().simple());
        PgConnection::establish(&admin_url)?.batch_execute(&format!("CREATE DATABASE {name}"))?;
        let mut url = Url::parse(&admin_url)?;
        url.set_path(&name);
        let database_url = String::from(url);
        migrations::run(&mut PgConnection::establish(&database_url)?)?;

        let connection =
            lapin::Connection::connect(&amqp_url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel
            .exchange_declare(
                name.as_str().into(),
                ExchangeKind::Topic,
                durable,
                FieldTable::default(),
            )
            .await?;
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(name.as_str().into(), durable, quorum).await?;
        let all = QueueBindOptions::default();
        channel
            .queue_bind(
                name.as_str().into(),
                name.as_str().into(),
                "#".into(),
                all,
                FieldTable::default(),
            )
            .await?;
        Ok(Self { name, admin_url, database_url, amqp_url, channel })
    }

    /// The name of the exchange and of the queue bound to it.
    #[must_use]
    pub fn exchange(&self) -> &str {
        &self.name
    }

    /// A pool on the database.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn pool(&self) -> Result<Db<PgConnection>> {
        Ok(Db::open(&self.database_url, db::Settings::default().with_pool_size(4))?)
    }

    /// A publisher for a relay.
    ///
    /// # Errors
    /// When the address is bad.
    pub fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        let mut settings = RabbitSettings::new(&self.amqp_url);
        // The bench publishes to it directly, too.
        settings.allow_plaintext = true;
        settings.publish_timeout = std::time::Duration::from_secs(15);
        settings.heartbeat = std::time::Duration::from_secs(5);
        Ok(Arc::new(RabbitMq::new(&settings)?))
    }

    /// Commits `count` messages with a payload of [`PAYLOAD_BYTES`] and tidies up.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn fill(&self, count: usize) -> Result<()> {
        self.append(count, PAYLOAD_BYTES)?;
        self.tidy()
    }

    /// Commits `count` messages to the outbox, with the headers an event has and 1,000 ordering keys,
    /// in transactions of at most 100,000.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn append(&self, count: usize, payload_bytes: usize) -> Result<()> {
        let mut conn = PgConnection::establish(&self.database_url)?;
        for first in (1..=count).step_by(PIECE) {
            let last = count.min(first + PIECE - 1);
            let rows = sql_query(format!(
                "INSERT INTO outbox_messages (kind, operation, ordering_key, exchange, headers, payload)
                 SELECT 'bench.message', 'operation-' || n, 'key-' || n % 1000, '{}',
                        jsonb_build_object('counterfoil-fingerprint', repeat('a', 64), 'counterfoil-schema-version', '1'),
                        convert_to(repeat('x', {payload_bytes}), 'UTF8')
                 FROM generate_series({first}, {last}) n",
                self.name
            ))
            .execute(&mut conn)?;
            ensure!(rows == last - first + 1, "{rows} rows instead of {first} to {last}");
        }
        Ok(())
    }

    /// Leaves the database nothing to do behind a measurement: vacuumed, analysed, written to disk.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn tidy(&self) -> Result<()> {
        // Each on its own: several statements in one call are one transaction.
        for step in
            ["VACUUM ANALYZE outbox_messages", "VACUUM ANALYZE outbox_cursors", "CHECKPOINT"]
        {
            self.execute(step)?;
        }
        Ok(())
    }

    /// Removes every row of the log. The cursor stays where it is, and new rows come after it.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn empty_log(&self) -> Result<()> {
        self.execute("TRUNCATE outbox_messages")
    }

    /// Fills the inbox with operations, in no order of their keys.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn fill_operations(&self, count: u64) -> Result<()> {
        // With the indexes in place each row would be sorted into two of them.
        self.execute(&format!(
            "ALTER TABLE inbox_operations DROP CONSTRAINT inbox_operations_pkey;
             DROP INDEX inbox_operations_age;
             INSERT INTO inbox_operations (consumer, scope, operation, fingerprint, message_id, result, applied_at, finished_at)
             SELECT 'bench', 'bench.message', 'pay_' || left(md5(n::text), 16) || n, sha256(n::text::bytea),
                    gen_random_uuid()::text, NULL, now() - n * interval '1 millisecond', now()
             FROM generate_series(1, {count}) n;
             ALTER TABLE inbox_operations ADD PRIMARY KEY (consumer, scope, operation);
             CREATE INDEX inbox_operations_age ON inbox_operations (consumer COLLATE \"C\", applied_at)"
        ))?;
        self.execute("VACUUM ANALYZE inbox_operations")?;
        self.execute("CHECKPOINT")
    }

    /// Moves the cursor past everything committed, as if a relay had published it.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn pass_everything(&self) -> Result<()> {
        self.execute(
            "UPDATE outbox_cursors SET snapshot = pg_current_snapshot(),
                 seq = (SELECT max(seq) FROM outbox_messages), late_seq = NULL, late_snapshot = NULL
             WHERE name = 'relay'",
        )
    }

    fn execute(&self, sql: &str) -> Result<()> {
        Ok(PgConnection::establish(&self.database_url)?.batch_execute(sql)?)
    }

    /// Empties the queue and checks how many messages were in it.
    ///
    /// # Errors
    /// When there were others than `expected`.
    pub async fn expect_in_queue(&self, expected: usize) -> Result<()> {
        let found = self
            .channel
            .queue_purge(self.name.as_str().into(), QueuePurgeOptions::default())
            .await?;
        ensure!(found as usize == expected, "{found} messages in the queue instead of {expected}");
        Ok(())
    }

    /// Deletes everything.
    ///
    /// # Errors
    /// When a service refuses.
    pub async fn remove(self) -> Result<()> {
        self.channel.queue_delete(self.name.as_str().into(), QueueDeleteOptions::default()).await?;
        self.channel
            .exchange_delete(self.name.as_str().into(), ExchangeDeleteOptions::default())
            .await?;
        PgConnection::establish(&self.admin_url)?
            .batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name))?;
        Ok(())
    }
}
