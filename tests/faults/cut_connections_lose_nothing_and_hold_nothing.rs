//! Connections to broker and database are cut while messages flow: the relay comes back by itself,
//! every message arrives, nothing counts as refused, and the order of each key is kept.

use std::sync::Arc;
use std::time::Duration;

use db::Db;
use diesel::sql_types::BigInt;
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use outbox::reader::LogStore;
use relay::{Relay, Settings};
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::ledger::{Arrived, Ledger};
use support::proxy::Proxy;
use support::services::amqp_url;
use tokio::sync::oneshot;
use transport::rabbitmq::{RabbitMq, RabbitSettings};

const ROUNDS: usize = 6;
const PER_ROUND: usize = 1_500;
const CHUNK_ROWS: u32 = 200;

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn while_messages_flow() {
    let database = Database::postgres();
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.fanout().await;

    let (to_broker, broker_url) = Proxy::to_url(&amqp_url()).await;
    let (to_database, database_url) = Proxy::to_url(&database.url).await;
    let mut broker = RabbitSettings::new(broker_url);
    broker.heartbeat = Duration::from_secs(2);
    broker.publish_timeout = Duration::from_secs(3);
    let mut settings = Settings::default();
    settings.lease = Duration::from_secs(5);
    settings.chunk_rows = CHUNK_ROWS;
    let db_settings = {
        let mut settings = db::Settings::default().with_pool_size(4);
        settings.acquire_timeout = Duration::from_secs(3);
        settings.lock_timeout = Duration::from_secs(3);
        settings
    };
    let db = Db::<PgConnection>::connect(&database_url, db_settings).await.expect("connects");
    let publisher = Arc::new(RabbitMq::new(&broker).expect("valid"));
    let relay = Relay::new(db, publisher).settings(settings).build().expect("valid");
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(async move { relay.run(async { drop(stopped.await) }).await });

    let mut conn = database.pg();
    let mut ledger = Ledger::new();
    for round in 0..ROUNDS {
        // Cut in the middle of the round: as soon as some of it has arrived.
        let before = corner.depth(&queue).await;
        ledger.commit(&mut conn, &exchange, 10, PER_ROUND);
        support::eventually("the round flows", async || corner.depth(&queue).await > before).await;
        if round % 2 == 0 {
            to_broker.cut()
        } else {
            to_database.cut()
        }
        support::eventually("the round is through", async || {
            conn.pending("relay").expect("counts") == 0
        })
        .await;
    }
    stop.send(()).expect("runs");
    support::bounded(running).await.expect("ends").expect("stops");

    let held: Count = sql_query("SELECT count(*) AS count FROM outbox_holds")
        .get_result(&mut conn)
        .expect("counts");
    assert_eq!(held.count, 0, "an outage is nobody's refusal");
    let mut arrived = Arrived::through(&exchange, &queue);
    arrived.take(&corner).await;
    arrived.complete(&ledger);
    let in_flight = CHUNK_ROWS as usize * 3;
    assert!(arrived.repeats() <= ROUNDS * in_flight, "{} repeats", arrived.repeats());
    corner.clean().await;
}
