//! Somebody's transaction takes the rows of held messages first and the cursor's after them, the other way
//! round than the relay: PostgreSQL ends the relay's transaction, and the relay writes the same again
//! instead of giving its session up and sending everything in flight once more.

use std::sync::Arc;
use std::time::Duration;

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::sql_types::BigInt;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use outbox::Draft;
use outbox::reader::LogStore;
use relay::{Backoff, Relay, Settings};
use support::database::Database;
use support::events::Fact;
use support::eventually;
use tokio::sync::oneshot;
use transport::memory::MemoryBroker;
use transport::{Binding, Exchange, ExchangeKind, Queue, QueueKind, Refusal, Topology, Verdict};

/// A write of the relay waits for a row that another transaction has.
const WAITING: &str = "SELECT count(*) AS n FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND application_name = 'counterfoil'
      AND query LIKE '%outbox_holds%'";
const HELD: &str = "SELECT count(*) AS n FROM outbox_holds";
const EPOCH: &str = "SELECT epoch AS n FROM outbox_cursors";
const DEADLOCKS: &str =
    "SELECT deadlocks AS n FROM pg_stat_database WHERE datname = current_database()";

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn number(conn: &mut PgConnection, sql: &str) -> i64 {
    sql_query(sql).get_result::<Number>(conn).expect("reads").n
}

struct Scene {
    database: Database,
    conn: PgConnection,
    broker: MemoryBroker,
}

impl Scene {
    /// A broker that refuses everything.
    async fn set() -> Self {
        let database = Database::postgres();
        let mut conn = database.pg();
        // Whoever has waited this long looks for a deadlock, once, and gives way: time enough for the other
        // one to close the circle.
        conn.batch_execute(
            "DO $$ BEGIN
                 EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''3s''', current_database());
             END $$",
        )
        .expect("sets");
        let broker = MemoryBroker::new();
        broker.record_published();
        let exchange = Exchange { name: "events".into(), kind: ExchangeKind::Fanout };
        broker.declare_exchange(&exchange).await.expect("declares");
        let queue = Queue { kind: QueueKind::Classic, ..Queue::new("all") };
        broker.declare_queue(&queue).await.expect("declares");
        let binding =
            Binding { exchange: "events".into(), queue: "all".into(), routing_key: String::new() };
        broker.bind(&binding).await.expect("binds");
        broker.script(|_| Some(Verdict::Refused(Refusal::Nacked)));
        Self { database, conn, broker }
    }

    fn enqueue(&mut self) {
        self.conn.transaction(|tx| Draft::of(&Fact::of("a", 1)).enqueue(tx)).expect("enqueues");
    }

    fn relay(&self) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let mut settings = Settings::default();
        settings.lease = Duration::from_secs(60);
        settings.poll_holds = Duration::from_millis(50);
        settings.hold_backoff =
            Backoff { first: Duration::from_millis(10), longest: Duration::from_millis(10) };
        settings.max_attempts = 1_000_000;
        let broker = self.broker.clone().with_publish_timeout(Duration::from_secs(20));
        let relay = Relay::new(self.database.pg_pool(4), Arc::new(broker)).settings(settings);
        let relay = relay.build().expect("valid");
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            relay.run(async { drop(stopped.await) }).await.expect("stops");
        });
        (stop, task)
    }

    /// A transaction of another party, which has done `first` already.
    fn other(&self, first: &str) -> PgConnection {
        let mut other = self.database.pg();
        other.batch_execute("SET deadlock_timeout = '1h'").expect("sets");
        AnsiTransactionManager::begin_transaction(&mut other).expect("begins");
        other.batch_execute(first).expect("locks");
        other
    }

    /// Once the relay's write waits for it, `other` asks for the cursor's row, which the relay has.
    async fn cross(&mut self, mut other: PgConnection) {
        eventually("the relay waits", async || number(&mut self.conn, WAITING) == 1).await;
        let crossing = tokio::task::spawn_blocking(move || {
            other.batch_execute("SELECT FROM outbox_cursors FOR UPDATE").expect("gets it");
            AnsiTransactionManager::rollback_transaction(&mut other).expect("unlocks");
        });
        support::bounded(crossing).await.expect("ends");
    }

    /// One deadlock, one session, and the message sent once.
    async fn end(mut self, stop: oneshot::Sender<()>, task: tokio::task::JoinHandle<()>) {
        self.broker.clear_script();
        eventually("it is sent", async || {
            self.conn.pending("relay").expect("counts") == 0 && number(&mut self.conn, HELD) == 0
        })
        .await;
        stop.send(()).expect("runs");
        support::bounded(task).await.expect("ends");
        assert_eq!(self.broker.published().len(), 1, "not sent again");
        // Given up once, at the end: each claim and each release counts one.
        assert_eq!(number(&mut self.conn, EPOCH), 2, "one session");
        eventually("the server counts it", async || number(&mut self.conn, DEADLOCKS) == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_cursor_is_moved() {
    let mut scene = Scene::set().await;
    // By the whole table: its rows are the relay's own until they are committed.
    let other = scene.other("LOCK TABLE outbox_holds IN SHARE ROW EXCLUSIVE MODE");
    scene.enqueue();
    let (stop, task) = scene.relay();
    scene.cross(other).await;
    eventually("it is held", async || number(&mut scene.conn, HELD) == 1).await;
    scene.end(stop, task).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_attempts_at_held_messages_are_recorded() {
    let mut scene = Scene::set().await;
    scene.enqueue();
    let (stop, task) = scene.relay();
    eventually("it is held", async || number(&mut scene.conn, HELD) == 1).await;
    let other = scene.other("SELECT FROM outbox_holds FOR UPDATE");
    scene.broker.clear_script();
    scene.cross(other).await;
    scene.end(stop, task).await;
}
