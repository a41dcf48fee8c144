//! The disk under PostgreSQL is full: producers are told so, what is stored goes on being published,
//! and when there is room again everything goes on by itself. With the write-ahead log on the full
//! disk the server itself gives up; then it is started again, and the relay is not.

use std::time::{Duration, Instant};

use diesel::{Connection, PgConnection};
use support::cluster::{Cluster, Stop};
use support::stream::{IN_FLIGHT, Stream};

#[tokio::test(flavor = "multi_thread")]
async fn with_room_for_its_log() {
    let cluster = Cluster::start_on_disk(80, false);
    let url = cluster.migrated("shop");
    let stream = Stream::open().await;
    let mut conn = cluster.pg("shop");
    let mut relay = stream.relay(&url);
    stream.enqueue(&mut conn, 1..=500);
    Stream::drained(&mut conn).await;
    cluster.fill_disk();
    let (last, told) = until_refused(&stream, &mut conn, 501);
    assert!(told.contains("No space left on device"), "{told}");
    // What did fit is published although nothing more does.
    Stream::drained(&mut conn).await;
    let producer = stream.producer(&url, last + 1);
    cluster.free_disk();
    let before = stream.count();
    stream.reaches(before + 300).await;
    let produced = producer.stop();
    Stream::drained(&mut conn).await;
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are(1..produced.numbers.end, IN_FLIGHT);
    stream.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_log_on_the_same_disk() {
    let mut cluster = Cluster::start_on_disk(100, true);
    let url = cluster.migrated("shop");
    let stream = Stream::open().await;
    let mut relay = stream.relay(&url);
    let producer = stream.producer(&url, 1);
    stream.reaches(300).await;
    cluster.fill_disk();
    // Whether the server lives on, recovers or ends depends on where the last page went.
    producer.refused().await;
    cluster.free_disk();
    support::eventually("the server is back", async || {
        if cluster.has_ended() {
            cluster.launch();
        }
        PgConnection::establish(&url).is_ok()
    })
    .await;
    let before = stream.count();
    stream.reaches(before + 300).await;
    let produced = producer.stop();
    assert!(produced.failures > 0, "{produced:?}");
    let mut conn = cluster.pg("shop");
    Stream::drained(&mut conn).await;
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are(produced.numbers, 4 * IN_FLIGHT);
    drop(conn);
    cluster.stop(Stop::Fast);
    stream.close().await;
}

/// Enqueues until the database refuses; the last number that is stored, and what it said.
fn until_refused(stream: &Stream, conn: &mut PgConnection, first: i64) -> (i64, String) {
    let until = Instant::now() + Duration::from_secs(20);
    let mut last = first - 1;
    while Instant::now() < until {
        let next: Vec<i64> = (last + 1..=last + 50).collect();
        match stream.try_enqueue(conn, &next) {
            Ok(()) => last += 50,
            Err(error) => return (last, error.to_string()),
        }
    }
    panic!("{last} rows fitted on a full disk");
}
