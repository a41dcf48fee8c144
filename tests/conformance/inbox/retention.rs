//! What an inbox forgets, and what it keeps.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::BigInt;
use inbox::retention::{Progress, Purged, Retention, purge};
use inbox::{Consumer, Failure, Inbox, Once, Outcome, Reason, ReplaySafe};
use message::Fingerprint;
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Running, Store, crediting, parked};
use support::recorded::Recorded;

use super::on_both;

on_both!(
    operations_go_after_their_window_oldest_first_and_so_many_at_a_time,
    results_go_before_keys_and_each_is_looked_at_once,
    results_claimed_at_one_moment_go_together,
    parked_messages_go_only_where_it_was_asked_for_and_nobody_works_on_them,
    counts_of_starts_go_after_their_window,
    an_inbox_purges_by_itself,
);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn apply<C: Store>(conn: &mut C, consumer: Consumer<'_>, payment: &str) -> Outcome<Option<String>> {
    let (key, fingerprint) = (Payment::key(payment), Fingerprint::of_bytes(b""));
    let once = Once::new(consumer, &key, &fingerprint);
    // Those that begin with n answer with null.
    let receipt = (!payment.starts_with('n')).then(|| "receipt".to_owned());
    conn.write(|tx| once.run(tx, |_| Ok::<_, Error>(receipt))).expect("no error")
}

/// A moment so many days ago, in the database's own terms.
fn ago<C: Store>(days: u32) -> String {
    match C::NAME {
        "postgres" => format!("clock_timestamp() - interval '{days} days'"),
        _ => format!("CAST(unixepoch('subsec') * 1000000 AS INTEGER) - {days} * 86400000000"),
    }
}

fn applied<C: Store>(conn: &mut C, payments: &[(&str, u32)]) {
    for (payment, days) in payments {
        let _ = apply(conn, BILLING, payment);
        conn.batch_execute(&format!(
            "UPDATE inbox_operations SET applied_at = {} WHERE operation = '{payment}'",
            ago::<C>(*days)
        ))
        .expect("ages");
    }
}

fn known<C: Store>(conn: &mut C, payments: &[&str]) -> Vec<bool> {
    payments.iter().map(|payment| C::stored(conn, payment).is_some()).collect()
}

fn retention(change: impl FnOnce(&mut Retention)) -> Retention {
    let mut retention = Retention::default();
    change(&mut retention);
    retention
}

fn purge_once<C: Store>(conn: &mut C, retention: &Retention, progress: &mut Progress) -> Purged {
    purge(conn, BILLING, retention, progress).expect("purges")
}

async fn operations_go_after_their_window_oldest_first_and_so_many_at_a_time<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    applied(conn, &[("p3", 91), ("p1", 100), ("p4", 89), ("p2", 95), ("p5", 0)]);
    let other = Consumer("other");
    let _ = apply(conn, other, "p1");
    conn.batch_execute(&format!(
        "UPDATE inbox_operations SET applied_at = {} WHERE consumer = 'other'",
        ago::<C>(100)
    ))
    .expect("ages");

    let (retention, progress) = (retention(|r| r.rows = 2), &mut Progress::default());
    let purged = purge_once(conn, &retention, progress);
    assert_eq!((purged.operations, purged.done), (2, false));
    assert_eq!(known(conn, &["p1", "p2", "p3", "p4", "p5"]), [false, false, true, true, true]);
    let purged = purge_once(conn, &retention, progress);
    assert_eq!((purged.operations, purged.done), (1, true));
    assert_eq!(known(conn, &["p3", "p4", "p5"]), [false, true, true]);
    assert_eq!(purge_once(conn, &retention, progress).operations, 0);

    // Who is forgotten takes effect again; nobody else does.
    assert!(matches!(apply(conn, BILLING, "p1"), Outcome::Applied(_)));
    assert!(matches!(apply(conn, BILLING, "p4"), Outcome::Duplicate(_)));
    assert!(matches!(apply(conn, other, "p1"), Outcome::Duplicate(_)));
}

async fn results_go_before_keys_and_each_is_looked_at_once<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    applied(conn, &[("p1", 50), ("null", 40), ("p2", 30), ("p3", 9)]);
    let retention = retention(|r| (r.results, r.rows) = (Some(10 * DAY), 1));
    let progress = &mut Progress::default();
    // Step by step: the one without a result is passed and has none to lose.
    for (results, done) in [(1, false), (0, false), (1, false), (0, true)] {
        let purged = purge_once(conn, &retention, progress);
        assert_eq!((purged.operations, purged.results, purged.done), (0, results, done));
    }
    let row = C::stored(conn, "p1").expect("the key is kept");
    assert_eq!(row.result, None);
    assert!(row.result_dropped_at > Some(row.applied_at));
    assert!(matches!(apply(conn, BILLING, "p1"), Outcome::Forgotten { .. }));
    assert_eq!(apply(conn, BILLING, "null"), Outcome::Duplicate(None));
    assert_eq!(apply(conn, BILLING, "p3"), Outcome::Duplicate(Some("receipt".to_owned())));
    // A walk from the beginning finds nothing left.
    let mut walk = Progress::default();
    for _ in 0..3 {
        assert_eq!(purge_once(conn, &retention, &mut walk).results, 0);
    }
    assert_eq!(walk, *progress);
}

async fn results_claimed_at_one_moment_go_together<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    applied(conn, &[("p1", 50), ("p2", 50), ("p3", 50), ("p4", 40)]);
    conn.batch_execute(
        "UPDATE inbox_operations SET applied_at = (SELECT min(applied_at) FROM inbox_operations)
         WHERE operation <> 'p4'",
    )
    .expect("ages");
    let retention = retention(|r| (r.results, r.rows) = (Some(10 * DAY), 1));
    let progress = &mut Progress::default();
    let counts = [0; 3].map(|_| purge_once(conn, &retention, progress).results);
    assert_eq!(counts, [3, 1, 0]);
}

async fn parked_messages_go_only_where_it_was_asked_for_and_nobody_works_on_them<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q")
        .concurrency(1)
        .on(ReplaySafe, |_: &mut C, _: &Payment, _| Err::<(), _>(Failure::reject("no")));
    let mut running = Running::start(builder);
    for payment in ["old", "retried", "young"] {
        feed.deliver(&Payment::new(payment, 1).message());
        assert_eq!(running.next().await.ending, parked(Reason::Rejected));
    }
    running.stop().await;
    let conn = &mut C::connection(&database);
    let (old, now) = (ago::<C>(40), ago::<C>(0));
    conn.batch_execute(&format!(
        "UPDATE inbox_parked SET last_parked_at = {old} WHERE operation <> 'young';
         UPDATE inbox_parked SET state = 'retry', not_before = {now} WHERE operation = 'retried'",
    ))
    .expect("ages");
    let left = |conn: &mut C| -> Vec<String> {
        C::parked(conn).into_iter().filter_map(|row| Some(row.operation?.1)).collect()
    };
    assert_eq!(purge_once(conn, &Retention::default(), &mut Progress::default()).parked, 0);
    assert_eq!(left(conn), ["old", "retried", "young"]);
    let asked = retention(|r| r.parked = Some(30 * DAY));
    assert_eq!(purge_once(conn, &asked, &mut Progress::default()).parked, 1);
    assert_eq!(left(conn), ["retried", "young"]);
}

async fn counts_of_starts_go_after_their_window<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    for (digest, days) in [("a", 31), ("b", 40), ("c", 29)] {
        let (bytes, at) = (format!("CAST('{digest}' AS {})", blob::<C>()), ago::<C>(days));
        conn.batch_execute(&format!(
            "INSERT INTO inbox_starts (consumer, digest, starts, started_at) VALUES ('billing', {bytes}, 1, {at})"
        ))
        .expect("starts");
    }
    let one = retention(|r| r.rows = 1);
    let purged = [0; 3].map(|_| purge_once(conn, &one, &mut Progress::default()));
    assert_eq!(
        purged.map(|purged| (purged.starts, purged.done)),
        [(1, false), (1, false), (0, true)]
    );
}

fn blob<C: Store>() -> &'static str {
    if C::NAME == "postgres" { "bytea" } else { "BLOB" }
}

async fn an_inbox_purges_by_itself<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    applied(conn, &[("p1", 100), ("p2", 95), ("p3", 1)]);
    let _ = Recorded::install();
    let feed = Feed::new();
    let builder = crediting(C::pool(&database), Arc::new(feed.clone()), "q")
        .retention(retention(|r| (r.every, r.rows) = (Duration::from_millis(5), 1)));
    let running = Running::start(builder);
    support::eventually("the old ones are gone", async || {
        known(conn, &["p1", "p2"]) == [false, false]
    })
    .await;
    assert_eq!(known(conn, &["p3"]), [true]);
    running.stop().await;
}

#[test]
fn a_locked_operation_is_passed_over_and_not_waited_for() {
    let database = PgConnection::database();
    let (mut purging, mut counting) =
        (PgConnection::connection(&database), PgConnection::connection(&database));
    applied(&mut purging, &[("p1", 100), ("p2", 95)]);
    purging.batch_execute("SET lock_timeout = '1s'").expect("sets");
    let (key, fingerprint) = (Payment::key("p1"), Fingerprint::of_bytes(b""));
    counting
        .transaction(|tx| {
            let once = Once::new(BILLING, &key, &fingerprint);
            let outcome: Outcome<Option<String>> = once.run(tx, |_| Err(Error::NotFound))?;
            assert!(matches!(outcome, Outcome::Duplicate(_)));
            let purged = purge_once(&mut purging, &Retention::default(), &mut Progress::default());
            assert_eq!(purged.operations, 1);
            Ok::<_, Error>(())
        })
        .expect("commits");
    assert_eq!(known(&mut purging, &["p1", "p2"]), [true, false]);
    let purged = purge_once(&mut purging, &Retention::default(), &mut Progress::default());
    assert_eq!(purged.operations, 1);
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn number(conn: &mut PgConnection, query: &str) -> i64 {
    diesel::sql_query(query).get_result::<Number>(conn).expect("answers").n
}

#[test]
fn a_parked_message_that_is_set_going_meanwhile_stays() {
    let database = PgConnection::database();
    let mut deciding = PgConnection::connection(&database);
    let mut looking = PgConnection::connection(&database);
    let mut purging = PgConnection::connection(&database);
    deciding
        .batch_execute(
            "INSERT INTO inbox_parked (consumer, reason, detail, attempts, digest, exchange, routing_key, headers, payload,
                                       parked_at, last_parked_at)
             VALUES ('billing', 'rejected', '', 1, 'd', 'e', 'r', '{}', '', 'epoch', 'epoch')",
        )
        .expect("parks");
    let mut purge = None;
    deciding
        .transaction(|tx| {
            tx.batch_execute("UPDATE inbox_parked SET state = 'retry', not_before = now()")?;
            purge = Some(thread::spawn(move || {
                let asked = retention(|r| r.parked = Some(DAY));
                purge_once(&mut purging, &asked, &mut Progress::default()).parked
            }));
            let waiters = "SELECT count(*) AS n FROM pg_stat_activity
                           WHERE datname = current_database() AND wait_event_type = 'Lock'";
            while number(&mut looking, waiters) == 0 {
                thread::yield_now();
            }
            Ok::<_, Error>(())
        })
        .expect("commits");
    assert_eq!(purge.expect("was started").join().expect("no panic"), 0);
    assert_eq!(number(&mut looking, "SELECT count(*) AS n FROM inbox_parked"), 1);
}
