//! A table is dropped, a column goes, a right is revoked under a running relay: it ends with code 1
//! and one line that names cause and remedy, instead of idling or trying for ever. What is in the
//! outbox stays, and is sent when the cause is gone.

use diesel::connection::SimpleConnection;
use support::cluster::Cluster;
use support::process::Process;
use support::stream::Stream;

const SCHEMA: [&str; 5] = [
    "DROP TABLE outbox_messages CASCADE",
    "DROP TABLE outbox_cursors CASCADE",
    "DROP TABLE outbox_holds CASCADE",
    "ALTER TABLE outbox_messages DROP COLUMN payload CASCADE",
    "ALTER TABLE outbox_messages RENAME TO elsewhere",
];

/// What takes a right, and what gives it back.
const RIGHTS: [(&str, &str); 4] = [
    ("REVOKE ALL ON outbox_messages FROM relay", "GRANT ALL ON outbox_messages TO relay"),
    ("REVOKE UPDATE ON outbox_cursors FROM relay", "GRANT UPDATE ON outbox_cursors TO relay"),
    ("REVOKE SELECT ON outbox_holds FROM relay", "GRANT SELECT ON outbox_holds TO relay"),
    ("REVOKE ALL ON SCHEMA public FROM PUBLIC, relay", "GRANT ALL ON SCHEMA public TO relay"),
];

/// A database where the relay's role may do everything but be its owner; the role's URL.
fn prepare(cluster: &Cluster, name: &str) -> String {
    let _ = cluster.migrated(name);
    cluster
        .pg(name)
        .batch_execute(
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO relay;
             GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO relay",
        )
        .expect("grants");
    cluster.url(name).replace("counterfoil@", "relay@")
}

fn ends(relay: &mut Process, why: &str, remedies: &[&str]) {
    let status = relay.finish();
    assert_eq!(status.code(), Some(1), "{why}:\n{}", relay.output);
    let line = relay.output.lines().rfind(|line| line.starts_with("relay: "));
    let line = line.unwrap_or_else(|| panic!("{why}: no last word in\n{}", relay.output));
    assert!(remedies.iter().any(|remedy| line.contains(remedy)), "{why}: {line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_schema_goes() {
    let cluster = Cluster::start("");
    cluster.pg("postgres").batch_execute("CREATE ROLE relay LOGIN").expect("a role");
    let stream = Stream::open().await;
    for (number, statement) in SCHEMA.into_iter().enumerate() {
        let name = format!("shop{number}");
        let url = prepare(&cluster, &name);
        let mut relay = stream.relay(&url);
        // Both on an idle relay: nobody has to enqueue something for it to notice.
        cluster.pg(&name).batch_execute(statement).expect(statement);
        ends(&mut relay, statement, &["relay migrate"]);
    }
    stream.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_right_goes() {
    let cluster = Cluster::start("");
    cluster.pg("postgres").batch_execute("CREATE ROLE relay LOGIN").expect("a role");
    let stream = Stream::open().await;
    let url = prepare(&cluster, "shop");
    let mut conn = cluster.pg("shop");
    let mut number = 0;
    for (revoke, grant) in RIGHTS {
        let mut relay = stream.relay(&url);
        stream.enqueue(&mut conn, number * 100 + 1..=number * 100 + 50);
        Stream::drained(&mut conn).await;
        conn.batch_execute(revoke).expect(revoke);
        ends(&mut relay, revoke, &["grant ", "GRANT ", "relay migrate"]);
        stream.enqueue(&mut conn, number * 100 + 51..=number * 100 + 100);
        conn.batch_execute(grant).expect(grant);
        // Not given up by one that may not write: its end is not what this is about.
        let free = "UPDATE outbox_cursors SET owner = NULL, lease_until = NULL";
        conn.batch_execute(free).expect(free);
        number += 1;
    }
    let mut relay = stream.relay(&url);
    Stream::drained(&mut conn).await;
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are(1..=number * 100, 0);
    stream.close().await;
}
