//! PostgreSQL falls silent while every connection stays open: the network swallows packets, the
//! relay's own sessions freeze, or the whole server does. The holder gives up its lease by its own
//! clock and publishes nothing after it; a standby that reaches the database goes on; and the holder
//! itself is of use again without a restart.

use nix::sys::signal::Signal;
use support::cluster::{self, Cluster};
use support::database::Database;
use support::proxy::Proxy;
use support::stream::{IN_FLIGHT, Stream};

#[tokio::test(flavor = "multi_thread")]
async fn when_the_network_swallows_packets() {
    let database = Database::postgres();
    let (proxy, through) = Proxy::to_url(&database.url).await;
    let stream = Stream::open().await;
    let mut conn = database.pg();
    let mut first = stream.relay(&through);
    stream.enqueue(&mut conn, 1..=400);
    Stream::drained(&mut conn).await;

    proxy.blackhole();
    stream.enqueue(&mut conn, 401..=1_000);
    let mut second = stream.relay(&database.url);
    Stream::drained(&mut conn).await;
    stream.enqueue(&mut conn, 1_001..=1_400);
    // What was held may still reach the server: its epoch is of the past.
    proxy.resume();
    Stream::drained(&mut conn).await;
    // The first one alone again: it must come back by itself.
    second.kill();
    stream.enqueue(&mut conn, 1_401..=2_000);
    Stream::drained(&mut conn).await;
    let _ = Stream::stop(&mut first);
    stream.arrived().await.are(1..=2_000, 2 * IN_FLIGHT);
    stream.close().await;
}

/// The server is well, and new connections work; those that the relay has never answer again.
#[tokio::test(flavor = "multi_thread")]
async fn when_its_sessions_freeze() {
    let cluster = Cluster::start("");
    let url = cluster.migrated("shop");
    let stream = Stream::open().await;
    let mut conn = cluster.pg("shop");
    let mut relay = stream.relay(&url);
    stream.enqueue(&mut conn, 1..=400);
    Stream::drained(&mut conn).await;

    let mut frozen = Vec::new();
    for round in 1..=3 {
        let sessions = cluster.sessions("counterfoil-relay");
        let thawed: Vec<i32> = sessions.into_iter().filter(|pid| !frozen.contains(pid)).collect();
        assert!(!thawed.is_empty());
        cluster::signal(&thawed, Signal::SIGSTOP);
        frozen.extend(thawed);
        stream.enqueue(&mut conn, round * 400 + 1..=(round + 1) * 400);
        Stream::drained(&mut conn).await;
    }
    cluster::signal(&frozen, Signal::SIGCONT);
    stream.enqueue(&mut conn, 1_601..=2_000);
    Stream::drained(&mut conn).await;
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are(1..=2_000, 3 * IN_FLIGHT);
    stream.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_whole_server_freezes() {
    let cluster = Cluster::start("");
    let url = cluster.migrated("shop");
    let stream = Stream::open().await;
    let mut conn = cluster.pg("shop");
    let mut relay = stream.relay(&url);
    let producer = stream.producer(&url, 1);
    stream.reaches(200).await;
    cluster.freeze();
    // By its own clock: there is nobody to ask. Each attempt to connect takes 3 s of the lease's 5.
    for _ in 0..3 {
        relay.wait_for("trying again");
    }
    cluster.thaw();
    let before = stream.count();
    stream.reaches(before + 200).await;
    let produced = producer.stop();
    Stream::drained(&mut conn).await;
    let epoch = cluster.value("shop", "SELECT epoch FROM outbox_cursors WHERE name = 'relay'");
    assert_ne!(epoch, "1", "the lease was given up");
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are(produced.numbers, 2 * IN_FLIGHT);
    stream.close().await;
}
