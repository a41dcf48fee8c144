//! The primary dies and an asynchronous standby that lacks its last commits takes over. It gives out
//! the same seqs and the same transaction numbers once more. The relay, which had come past them,
//! reads the cursor again instead of trusting its memory, says that the timeline changed, and sends
//! the new rows; what was lost with the old primary may have been sent.

use diesel::connection::SimpleConnection;
use support::cluster::{Cluster, Stop};
use support::proxy::Proxy;
use support::stream::{IN_FLIGHT, Stream};

/// More than the numbers a sequence runs ahead in the write-ahead log (32).
const LOST: std::ops::RangeInclusive<i64> = 401..=480;

#[tokio::test(flavor = "multi_thread")]
async fn and_goes_on_without_a_restart() {
    let mut primary = Cluster::start("");
    let url = primary.migrated("shop");
    let standby = primary.standby();
    let (proxy, through) = Proxy::to_url(&url).await;
    let stream = Stream::open().await;
    let mut relay = stream.relay(&through);
    let mut conn = primary.pg("shop");
    stream.enqueue(&mut conn, 1..=300);
    // Open while the cursor goes by: its number is in the stored snapshot, and dies with the primary.
    let mut open = primary.pg("shop");
    open.batch_execute("BEGIN; SELECT pg_current_xact_id()").expect("begins");
    stream.enqueue(&mut conn, 301..=320);
    Stream::drained(&mut conn).await;
    standby.catch_up_with(&primary);
    standby.fall_behind();
    for number in LOST {
        stream.enqueue(&mut conn, [number]);
    }
    Stream::drained(&mut conn).await;
    let last = "SELECT max(seq)::text || ' ' || max(xid::text::bigint)::text FROM outbox_messages";
    let (lost_seq, lost_xid) = pair(&primary.value("shop", last));

    primary.stop(Stop::Immediate);
    standby.promote();
    proxy.redirect(standby.address());
    proxy.cut();
    let mut conn = standby.pg("shop");
    for number in 501..=540 {
        stream.enqueue(&mut conn, [number]);
    }
    let first = "SELECT min(seq)::text || ' ' || min(xid::text::bigint)::text FROM outbox_messages
                 WHERE operation LIKE '%-501'";
    let (new_seq, new_xid) = pair(&standby.value("shop", first));
    assert!(new_seq <= lost_seq && new_xid <= lost_xid, "the numbers are given out again");
    Stream::drained(&mut conn).await;
    stream.enqueue(&mut conn, 541..=900);
    Stream::drained(&mut conn).await;

    let output = Stream::stop(&mut relay);
    let arrived = stream.arrived().await;
    let committed = (1..=320).chain(501..=900).collect();
    arrived.include(committed, &LOST.collect(), IN_FLIGHT);
    assert!(output.contains("failed over"), "the change is said:\n{output}");
    stream.close().await;
}

fn pair(text: &str) -> (i64, i64) {
    let (seq, xid) = text.split_once(' ').expect("two numbers");
    (seq.parse().expect("a number"), xid.parse().expect("a number"))
}
