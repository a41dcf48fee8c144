//! The database is stopped under load, orderly and as by a crash, and stays away for a while: the
//! relay waits without flooding its log, goes on by itself, and nothing is lost, nothing is held, and
//! each key keeps its order.

use std::time::Instant;

use support::cluster::{Cluster, Stop};
use support::stream::{IN_FLIGHT, Stream};

const STOPS: [Stop; 4] = [Stop::Fast, Stop::Immediate, Stop::Fast, Stop::Immediate];

#[tokio::test(flavor = "multi_thread")]
async fn under_load() {
    let mut cluster = Cluster::start("");
    let url = cluster.migrated("shop");
    let stream = Stream::open().await;
    let mut relay = stream.relay(&url);
    let producer = stream.producer(&url, 1);
    let mut away = 0.0;
    for how in STOPS {
        let before = stream.count();
        stream.reaches(before + 200).await;
        let stopped = Instant::now();
        cluster.stop(how);
        // The first tells of the loss; the second of an attempt that found nobody.
        relay.wait_for("trying again");
        relay.wait_for("trying again");
        cluster.launch();
        away += stopped.elapsed().as_secs_f64();
    }
    let before = stream.count();
    stream.reaches(before + 200).await;
    let produced = producer.stop();
    let mut conn = cluster.pg("shop");
    Stream::drained(&mut conn).await;
    let output = Stream::stop(&mut relay);

    assert!(produced.failures >= STOPS.len(), "{produced:?}");
    // From 50 ms the waits double to at least 750 ms.
    let attempts = STOPS.len() as f64 * 5.0 + away / 0.75;
    let warnings = output.lines().filter(|line| line.contains("trying again")).count();
    assert!((warnings as f64) <= attempts, "{warnings} warnings in {away} s:\n{output}");
    // Each of them may take the connections of all lanes with it, and these say so.
    let lines = output.lines().count();
    assert!((lines as f64) <= 20.0 * attempts, "{lines} lines in {away} s:\n{output}");
    assert_eq!(cluster.value("shop", "SELECT count(*) FROM outbox_holds"), "0");
    stream.arrived().await.are(produced.numbers, STOPS.len() * IN_FLIGHT);
    stream.close().await;
}
