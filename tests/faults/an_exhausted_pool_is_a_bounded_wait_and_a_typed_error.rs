//! All connections are in use, in the pool or in the server: whoever asks for one waits as long as was
//! said and is told what to do; the relay waits for its turn and goes on by itself.

use std::sync::Arc;
use std::time::Duration;

use db::{CallError, Db};
use diesel::PgConnection;
use diesel::result::Error;
use nix::sys::signal::Signal;
use outbox::reader::LogStore;
use relay::{Relay, Settings};
use support::broker::rabbitmq;
use support::cluster::{self, Cluster};
use support::database::Database;
use support::stream::{IN_FLIGHT, Stream};
use tokio::sync::oneshot;

fn pool(url: &str, size: u32) -> Db<PgConnection> {
    let mut settings = db::Settings::default().with_pool_size(size);
    settings.acquire_timeout = Duration::from_millis(500);
    Db::open(url, settings).expect("opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_pool_that_the_relay_shares() {
    let database = Database::postgres();
    let stream = Stream::open().await;
    let db = pool(&database.url, 3);
    let mut settings = Settings::default();
    settings.lease = Duration::from_secs(15);
    let publisher = Arc::new(rabbitmq());
    let relay = Relay::new(db.clone(), publisher).settings(settings).build().expect("valid");
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(async move { relay.run(async { drop(stopped.await) }).await });
    let mut conn = database.pg();
    stream.enqueue(&mut conn, 1..=200);
    Stream::drained(&mut conn).await;

    let mut held = Vec::new();
    support::eventually("the service has all three", async || {
        held.extend(db.get::<Error>().ok());
        held.len() == 3
    })
    .await;
    stream.enqueue(&mut conn, 201..=400);
    // Longer than the relay waits for one: its next call fails as well.
    let refused = db.call(|conn| conn.pending("relay")).await;
    assert!(matches!(refused, Err(CallError::PoolExhausted { .. })), "{refused:?}");
    let refused = db.call(|conn| conn.pending("relay")).await;
    assert!(matches!(refused, Err(CallError::PoolExhausted { .. })), "{refused:?}");
    drop(held);
    Stream::drained(&mut conn).await;
    stop.send(()).expect("runs");
    support::bounded(running).await.expect("ends").expect("stops");
    stream.arrived().await.are(1..=400, IN_FLIGHT);
    stream.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_server() {
    let cluster = Cluster::start("");
    let _ = cluster.migrated("shop");
    let stream = Stream::open().await;
    let allow = |count: i32| {
        let limit = format!("ALTER ROLE relay CONNECTION LIMIT {count}");
        diesel::RunQueryDsl::execute(diesel::sql_query(limit), &mut cluster.pg("shop"))
            .expect("set");
    };
    for statement in [
        "CREATE ROLE relay LOGIN",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO relay",
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO relay",
    ] {
        let query = diesel::sql_query(statement);
        diesel::RunQueryDsl::execute(query, &mut cluster.pg("shop")).expect("a role");
    }
    let url = cluster.url("shop").replace("counterfoil@", "relay@");
    // There already when it starts.
    allow(0);
    let mut relay = stream.waiting_relay(&url);
    relay.wait_for("too many connections for role");
    allow(-1);
    relay.wait_for("relaying");
    let mut conn = cluster.pg("shop");
    stream.enqueue(&mut conn, 1..=200);
    Stream::drained(&mut conn).await;
    // And while it works.
    allow(0);
    cluster::signal(&cluster.sessions("counterfoil-relay"), Signal::SIGTERM);
    stream.enqueue(&mut conn, 201..=400);
    relay.wait_for("trying again");
    relay.wait_for("too many connections for role");
    allow(-1);
    Stream::drained(&mut conn).await;
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are(1..=400, IN_FLIGHT);
    stream.close().await;
}
