//! SIGKILL at each step between read and release, with the relay made to stand there: the standby
//! takes over at the end of the lease by itself, sends again what was not advanced past and nothing
//! else.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::sql_types::{BigInt, Text};
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use outbox::reader::LogStore;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::fence;
use support::ledger::{Arrived, Ledger};
use support::process::Process;
use support::proxy::{Direction, Proxy};
use support::relays::Relays;
use support::services::amqp_url;
use transport::rabbitmq::RabbitMq;

/// Less than a chunk, and each with a key of its own, so that all are in flight at once.
const BEFORE: usize = 150;
const AFTER: usize = 50;
const KEYS: usize = BEFORE;

struct Scene {
    database: Database,
    conn: PgConnection,
    corner: Corner<RabbitMq>,
    exchange: String,
    ledger: Ledger,
    arrived: Arrived,
}

impl Scene {
    async fn set() -> Self {
        let database = Database::postgres();
        let mut conn = database.pg();
        fence::watch(&mut conn);
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.fanout().await;
        let arrived = Arrived::through(&exchange, &queue);
        Self { database, conn, corner, exchange, ledger: Ledger::new(), arrived }
    }

    fn commit(&mut self, count: usize) {
        self.ledger.commit(&mut self.conn, &self.exchange, KEYS, count);
    }

    /// One relay by way of `broker` that works, and another that stands by.
    /// Enough has passed through the first for every lane to know the exchange: it looks for that
    /// before it publishes.
    async fn pair(&mut self, broker: &str) -> (Process, Process) {
        let relays = Relays::on(&self.database);
        let mut first = relays.clone().broker(broker).start("first");
        first.wait_for("relaying");
        let mut second = relays.start("second");
        second.wait_for("standing by");
        self.commit(BEFORE);
        self.drained().await;
        self.arrived.take(&self.corner).await;
        (first, second)
    }

    async fn drained(&mut self) {
        support::eventually("the outbox is drained", async || {
            self.conn.pending("relay").expect("counts") == 0
        })
        .await;
    }

    /// The second has taken over without help and in its time, and new messages flow.
    async fn end(mut self, second: Process, repeats: usize) {
        let who = fence::successor(&mut self.conn, 1).await;
        assert_eq!(who, "second");
        self.commit(AFTER);
        self.drained().await;
        self.arrived.take(&self.corner).await;
        self.arrived.complete(&self.ledger);
        assert_eq!(self.arrived.repeats(), repeats);
        let terms = fence::terms(&mut self.conn);
        assert_eq!(terms.len(), 2, "{terms:?}");
        assert!(!terms[1].vacant, "the lease of a dead holder has to end first: {terms:?}");
        fence::holds(&mut self.conn);
        drop(second);
        self.corner.clean().await;
    }
}

/// Another transaction's lock on the cursor's row, on which every write of the relay waits.
struct Locked<'a>(&'a mut PgConnection);

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

impl<'a> Locked<'a> {
    fn new(conn: &'a mut PgConnection) -> Self {
        AnsiTransactionManager::begin_transaction(conn).expect("begins");
        conn.batch_execute("SELECT 1 FROM outbox_cursors FOR UPDATE").expect("locks");
        Self(conn)
    }

    /// A statement of the relay `first` that looks like this waits for the row.
    async fn waits(&self, database: &Database, like: &str) {
        let mut conn = database.pg();
        support::eventually("the write waits", async || {
            let waiting: Count = sql_query(
                "SELECT count(*) AS count FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'first'
                   AND wait_event_type = 'Lock' AND query LIKE $1",
            )
            .bind::<Text, _>(like)
            .get_result(&mut conn)
            .expect("reads");
            waiting.count == 1
        })
        .await;
    }

    /// Ends the sessions of `first` as the end of its machine would: the server does not notice by
    /// itself that the client is gone while a statement waits, and would carry it out.
    fn bury(self) {
        sql_query(
            "SELECT count(pg_terminate_backend(pid)) AS count FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'first'",
        )
        .get_result::<Count>(self.0)
        .expect("terminates");
        AnsiTransactionManager::rollback_transaction(self.0).expect("unlocks");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_anything_has_reached_the_broker() {
    let mut scene = Scene::set().await;
    let (proxy, broker) = Proxy::to_url(&amqp_url()).await;
    let (mut first, second) = scene.pair(&broker).await;
    proxy.hold(Direction::ToServer);
    scene.commit(BEFORE);
    // Heartbeats are held too: more than those is messages.
    support::eventually("the messages are written to the socket", async || {
        proxy.held() > BEFORE * 50
    })
    .await;
    first.kill();
    proxy.cut();
    assert_eq!(scene.arrived.take(&scene.corner).await, 0);
    scene.end(second, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_confirm_has_come_back() {
    let mut scene = Scene::set().await;
    let (proxy, broker) = Proxy::to_url(&amqp_url()).await;
    let (mut first, second) = scene.pair(&broker).await;
    proxy.hold(Direction::ToClient);
    scene.commit(BEFORE);
    scene.arrived.next(&scene.corner, BEFORE).await;
    first.kill();
    scene.end(second, BEFORE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_confirms_and_before_the_advance() {
    let mut scene = Scene::set().await;
    let (mut first, second) = scene.pair(&amqp_url()).await;
    // The read is not held up by the lock, the advance is.
    let mut locking = scene.database.pg();
    let locked = Locked::new(&mut locking);
    scene.commit(BEFORE);
    locked.waits(&scene.database, "%SET seq =%").await;
    assert_eq!(scene.arrived.take(&scene.corner).await, BEFORE);
    first.kill();
    locked.bury();
    scene.end(second, BEFORE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_advance_and_before_the_release() {
    let mut scene = Scene::set().await;
    let (mut first, second) = scene.pair(&amqp_url()).await;
    scene.commit(BEFORE);
    scene.drained().await;
    let mut locking = scene.database.pg();
    let locked = Locked::new(&mut locking);
    first.terminate();
    locked.waits(&scene.database, "%SET owner = NULL%").await;
    first.kill();
    locked.bury();
    scene.end(second, 0).await;
}
