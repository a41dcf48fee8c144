//! A dump is restored into another cluster, whose transaction numbers mean something else. The relay
//! refuses to start and names the remedy; after `relay rebase` every row that was not published
//! arrives, the one whose transaction was still open when the cursor went by included, and new rows
//! flow.

use std::collections::BTreeSet;

use diesel::connection::SimpleConnection;
use diesel::{PgConnection, RunQueryDsl, sql_query};
use outbox::reader::LogStore;
use support::cluster::Cluster;
use support::process::Process;
use support::services::amqp_url;
use support::stream::Stream;

const SECOND: &str = "second";

/// What else is special about a restore.
#[derive(Clone, Copy, Debug, Default)]
struct Case {
    /// The new cluster's counter is ahead of the old one's, not behind.
    higher: bool,
    /// Producers write in the new cluster before anybody notices.
    producers_first: bool,
    /// Another cursor stands elsewhere.
    two_cursors: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_lower_transaction_counter() {
    restore(Case::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_higher_transaction_counter() {
    restore(Case { higher: true, ..Case::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_producers_at_work_before_the_rebase() {
    restore(Case { producers_first: true, ..Case::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_cursors_at_different_places() {
    restore(Case { two_cursors: true, producers_first: true, ..Case::default() }).await;
}

async fn restore(case: Case) {
    let (old, new) = (Cluster::start(""), Cluster::start(""));
    (if case.higher { &new } else { &old }).burn_xids(5_000);
    let url = old.migrated("shop");
    let stream = Stream::open().await;
    let mut conn = old.pg("shop");
    stream.enqueue(&mut conn, 1..=100);
    if case.two_cursors {
        sql_query("INSERT INTO outbox_cursors (name) VALUES ('second')")
            .execute(&mut conn)
            .expect("a cursor");
        run_until_drained(&stream, &url, SECOND, &mut conn).await;
        stream.arrived().await.are(1..=100, 0);
    }

    let mut relay = stream.relay(&url);
    stream.enqueue(&mut conn, 101..=200);
    let mut open = old.pg("shop");
    open.batch_execute("BEGIN").expect("begins");
    let key = "SELECT outbox_enqueue('test.fact', 'open-201', '{\"key\": \"key-open\", \"number\": 201}',";
    let insert = format!("{key} ordering_key => 'key-open', exchange => '{}')", stream.exchange);
    sql_query(insert).execute(&mut open).expect("enqueues");
    stream.enqueue(&mut conn, 202..=230);
    Stream::drained(&mut conn).await;
    let _ = Stream::stop(&mut relay);
    let mut published: BTreeSet<i64> = (1..=200).chain(202..=230).collect();
    stream.arrived().await.are(published.clone(), 0);
    // Below the cursor and not published, known by its transaction's number alone.
    open.batch_execute("COMMIT").expect("commits");
    stream.enqueue(&mut conn, 231..=300);
    let mut unpublished: BTreeSet<i64> = [201].into_iter().chain(231..=300).collect();

    old.dump_and_restore("shop", &new);
    let url = new.url("shop");
    assert_eq!(new.next_xid() > old.next_xid(), case.higher, "not the case meant");
    let mut conn = new.pg("shop");
    if case.producers_first {
        for number in 301..=340 {
            stream.enqueue(&mut conn, [number]);
        }
        unpublished.extend(301..=340);
    }
    let mut refused = stream.waiting_relay(&url);
    assert!(!refused.finish().success(), "{}", refused.output);
    assert!(refused.output.contains("relay rebase"), "{}", refused.output);
    assert_eq!(stream.count(), 0, "nothing is sent before");

    let mut rebase = Process::start(
        "relay",
        &["rebase", "--yes", "--reason", "restored"],
        &[("RELAY_DATABASE_URL", &url)],
    );
    assert!(rebase.finish().success(), "{}", rebase.output);
    let mut relay = stream.relay(&url);
    Stream::drained(&mut conn).await;
    stream.enqueue(&mut conn, 401..=500);
    unpublished.extend(401..=500);
    Stream::drained(&mut conn).await;
    let _ = Stream::stop(&mut relay);
    let arrived = stream.arrived().await;
    arrived.include(unpublished.clone(), &published, 0);
    if case.two_cursors {
        run_until_drained(&stream, &url, SECOND, &mut conn).await;
        let arrived = stream.arrived().await;
        published.retain(|number| *number > 100);
        arrived.include(&unpublished | &published, &(1..=100).collect(), 0);
    }
    stream.close().await;
}

async fn run_until_drained(stream: &Stream, url: &str, cursor: &str, conn: &mut PgConnection) {
    let args = ["run", "--cursor", cursor, "--config", stream.config()];
    let env = [("RELAY_DATABASE_URL", url), ("RELAY_AMQP_URL", &amqp_url())];
    let mut relay = Process::start("relay", &args, &env);
    relay.wait_for("relaying");
    support::eventually("the cursor's part is drained", async || {
        conn.pending(cursor).expect("counts") == 0
    })
    .await;
    let _ = Stream::stop(&mut relay);
}
