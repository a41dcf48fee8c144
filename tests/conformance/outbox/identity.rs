//! Transaction numbers that are another cluster's, and a database that was failed over. PostgreSQL
//! only: a SQLite file's places mean the same in every copy.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use outbox::admin::AdminStore;
use outbox::reader::{Advance, Claim, Foreign, LogStore, Settled};
use support::database::Database;
use support::events::Fact;

use super::{ALL, LIMIT, Postgres, TTL, claim, enqueue_facts, numbers};

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

fn foreign(conn: &mut impl LogStore) -> Foreign {
    match conn.claim("relay", "me", TTL).expect("asks") {
        Claim::Foreign(foreign) => foreign,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cursor_of_another_cluster_is_refused() {
    let database = Database::postgres();
    let mut conn = database.pg();
    let (lease, _) = claim(&mut conn, "me", TTL);
    assert_eq!(conn.release(&lease).expect("writes"), Advance::Done);
    conn.batch_execute("UPDATE outbox_cursors SET system_id = '7'").expect("writes");
    let found = foreign(&mut conn);
    assert!(matches!(&found, Foreign::OtherCluster { stored, .. } if stored == "7"), "{found:?}");
}

/// The look and the claim are two statements, and a rebase that begins between them keeps relays out.
#[test]
fn a_claim_that_looked_before_a_rebase_began_does_not_get_through() {
    let database = Database::postgres();
    let (mut rebasing, mut watching) = (database.pg(), database.pg());
    AnsiTransactionManager::begin_transaction(&mut rebasing).expect("begins");
    assert_eq!(rebasing.fence().expect("fences"), None);
    let mut conn = database.pg();
    let claiming = std::thread::spawn(move || {
        let first = conn.claim("relay", "me", TTL).expect("asks");
        (first, foreign(&mut conn))
    });
    let waits = "SELECT count(*) AS count FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%SET owner = $2%'";
    let until = std::time::Instant::now() + support::PATIENCE / 4;
    while sql_query(waits).get_result::<Count>(&mut watching).expect("reads").count == 0 {
        assert!(std::time::Instant::now() < until, "the claim never waits for the rebase");
        std::thread::yield_now();
    }
    AnsiTransactionManager::commit_transaction(&mut rebasing).expect("commits");
    let (first, second) = claiming.join().expect("ends");
    assert!(matches!(first, Claim::Busy { .. }), "{first:?}");
    assert!(matches!(&second, Foreign::OtherCluster { stored, .. } if stored.contains("rebase")));
}

#[test]
fn a_snapshot_or_rows_ahead_of_the_cluster_are_refused() {
    let database = Database::postgres();
    let mut conn = database.pg();
    // Never claimed, so nothing tells the cluster but the numbers themselves.
    let far = 4_000_000_000_000_u64;
    conn.batch_execute(&format!("UPDATE outbox_cursors SET snapshot = '1:{far}:'"))
        .expect("writes");
    let found = foreign(&mut conn);
    assert!(matches!(&found, Foreign::SnapshotAhead { snapshot } if snapshot.contains("4000")));
    conn.batch_execute(&format!(
        "UPDATE outbox_cursors SET snapshot = pg_current_snapshot(), late_seq = 0, late_snapshot = '1:{far}:'"
    ))
    .expect("writes");
    assert!(matches!(foreign(&mut conn), Foreign::SnapshotAhead { .. }));

    conn.batch_execute("UPDATE outbox_cursors SET late_seq = NULL, late_snapshot = NULL")
        .expect("writes");
    enqueue_facts::<Postgres>(&mut conn, &[Fact::keyless(1)]);
    let (lease, _) = claim(&mut conn, "me", TTL);
    assert_eq!(conn.release(&lease).expect("writes"), Advance::Done);
    conn.batch_execute(&format!("UPDATE outbox_messages SET xid = '{far}'")).expect("writes");
    assert_eq!(foreign(&mut conn), Foreign::RowsAhead);
}

#[test]
fn after_a_failover_the_holder_writes_nothing_and_claims_anew() {
    let database = Database::postgres();
    let mut conn = database.pg();
    enqueue_facts::<Postgres>(&mut conn, &[Fact::keyless(1)]);
    let (before, position) = claim(&mut conn, "me", TTL);
    let chunk = conn.read(&position, &ALL, LIMIT).expect("reads");
    // As on a promoted standby: the same row, written under another timeline than the server's.
    conn.batch_execute("UPDATE outbox_cursors SET timeline = timeline + 1").expect("writes");
    assert_eq!(conn.renew(&before).expect("writes"), Advance::LeaseLost);
    assert_eq!(conn.advance(&before, &chunk.next, &[]).expect("writes"), Advance::LeaseLost);
    assert_eq!(conn.settle(&before, &[]).expect("writes"), Settled::LeaseLost);
    let (after, position) = claim(&mut conn, "me", TTL);
    assert_eq!(after.promoted_from, Some(before.timeline + 1));
    assert_eq!(after.timeline, before.timeline);
    assert_eq!(numbers(&conn.read(&position, &ALL, LIMIT).expect("reads")), [1]);
    assert_eq!(conn.renew(&after).expect("writes"), Advance::Done);
}
