//! A relay that is told of commits and else would look once an hour publishes each at once: also what a
//! transaction commits that wrote it before the relay fell asleep, while the connection it is told on is
//! killed, and after the wake-up was turned off under it. Where it could not be told it does not start.

use std::fs::File;
use std::io::Write;

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::sql_types::BigInt;
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use outbox::admin::{AdminStore, Order};
use support::database::Database;
use support::eventually;
use support::process::Process;
use support::services::amqp_url;
use support::stream::Stream;

/// The lock of a relay that sleeps.
const ASLEEP: &str = "SELECT count(*) AS n FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted AND datname = current_database()
      AND application_name LIKE '% wake-up'";
/// A relay that wanted to sleep, and asked within the last moments.
const WOULD_SLEEP: &str = "SELECT count(*) AS n FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE '% wake-up'
      AND query LIKE '%pg_try_advisory_lock%' AND query_start > (SELECT max(created_at) FROM outbox_messages)";
const KILL: &str = "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE '% wake-up'";

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn number(conn: &mut PgConnection, sql: &str) -> i64 {
    sql_query(sql).get_result::<Number>(conn).expect("answers").n
}

async fn becomes(conn: &mut PgConnection, what: &str, sql: &str) {
    eventually(what, async || number(conn, sql) == 1).await;
}

async fn wakes_up(conn: &mut PgConnection) {
    eventually("the relay is awake", async || number(conn, ASLEEP) == 0).await;
}

fn order() -> Order {
    Order::new("anna@desk", "ticket 4711")
}

async fn open(database: &Database) -> Stream {
    database.pg().set_wakeup(true, &order()).expect("turns on");
    let stream = Stream::open().await;
    let mut file = File::options().append(true).open(stream.config()).expect("settings");
    writeln!(file, "wake = 'notify'\npoll_idle = '1h'").expect("written");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_of_what_is_committed() {
    let database = Database::postgres();
    let stream = open(&database).await;
    let mut relay = stream.relay(&database.url);
    let mut conn = database.pg();
    for round in 0..4_i64 {
        becomes(&mut conn, "the relay sleeps", ASLEEP).await;
        AnsiTransactionManager::begin_transaction(&mut conn).expect("begins");
        stream.try_enqueue(&mut conn, &[-1]).expect("inserts");
        AnsiTransactionManager::rollback_transaction(&mut conn).expect("rolls back");
        stream.enqueue(&mut conn, round * 45 + 1..=round * 45 + 45);
        stream.reaches(usize::try_from((round + 1) * 45).expect("small")).await;
    }
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are(1..=180, 0);
    stream.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_will_not_tell_keeps_it_awake() {
    let database = Database::postgres();
    let stream = open(&database).await;
    let (mut conn, mut slow) = (database.pg(), database.pg());
    AnsiTransactionManager::begin_transaction(&mut slow).expect("begins");
    stream.try_enqueue(&mut slow, &[1]).expect("inserts");
    let mut relay = stream.relay(&database.url);
    stream.enqueue(&mut conn, [2]);
    stream.reaches(1).await;
    becomes(&mut conn, "the relay would sleep", WOULD_SLEEP).await;
    AnsiTransactionManager::commit_transaction(&mut slow).expect("commits");
    stream.reaches(2).await;
    becomes(&mut conn, "the relay sleeps", ASLEEP).await;
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are([1, 2], 0);
    stream.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_killed_is_replaced() {
    let database = Database::postgres();
    let stream = open(&database).await;
    let mut relay = stream.relay(&database.url);
    let mut conn = database.pg();
    for number in 1..=5 {
        becomes(&mut conn, "the relay sleeps", ASLEEP).await;
        assert_eq!(self::number(&mut conn, KILL), 1);
        stream.enqueue(&mut conn, [number]);
        stream.reaches(usize::try_from(number).expect("small")).await;
    }
    becomes(&mut conn, "the relay sleeps", ASLEEP).await;
    let output = Stream::stop(&mut relay);
    assert!(output.contains("commits are not told for the moment"), "{output}");
    stream.arrived().await.are(1..=5, 0);
    stream.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turned_off_while_it_sleeps_it_polls() {
    let database = Database::postgres();
    let stream = open(&database).await;
    let mut relay = stream.relay(&database.url);
    let mut conn = database.pg();
    becomes(&mut conn, "the relay sleeps", ASLEEP).await;
    assert!(conn.set_wakeup(false, &order()).expect("turns off"));
    stream.enqueue(&mut conn, [1]);
    stream.reaches(1).await;
    assert!(conn.set_wakeup(true, &order()).expect("turns on"));
    becomes(&mut conn, "the relay sleeps", ASLEEP).await;
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are([1], 0);
    stream.close().await;
}

/// Nobody is to notify one that would not read.
#[tokio::test(flavor = "multi_thread")]
async fn paused_it_wakes_up_and_resumed_it_reads() {
    let database = Database::postgres();
    let stream = open(&database).await;
    let mut relay = stream.relay(&database.url);
    let mut conn = database.pg();
    becomes(&mut conn, "the relay sleeps", ASLEEP).await;
    conn.pause("relay", &order()).expect("pauses");
    wakes_up(&mut conn).await;
    stream.enqueue(&mut conn, [1]);
    assert!(conn.resume("relay", &order()).expect("resumes"));
    stream.reaches(1).await;
    becomes(&mut conn, "the relay sleeps", ASLEEP).await;
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are([1], 0);
    stream.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_lease_it_wakes_up() {
    let database = Database::postgres();
    let stream = open(&database).await;
    let mut relay = stream.relay(&database.url);
    let mut conn = database.pg();
    becomes(&mut conn, "the relay sleeps", ASLEEP).await;
    let steal = "UPDATE outbox_cursors SET owner = 'another', epoch = epoch + 1, lease_until = now() + interval '1 hour'";
    conn.batch_execute(steal).expect("takes the lease");
    wakes_up(&mut conn).await;
    let back = "UPDATE outbox_cursors SET owner = NULL, lease_until = NULL";
    conn.batch_execute(back).expect("gives it back");
    becomes(&mut conn, "the relay sleeps", ASLEEP).await;
    stream.enqueue(&mut conn, [1]);
    stream.reaches(1).await;
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are([1], 0);
    stream.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_could_not_be_told_it_does_not_start() {
    let (database, file) = (Database::postgres(), Database::sqlite());
    let stream = open(&database).await;
    for (url, pooler, parts) in [
        (&database.url, "true", ["transaction_pooler = true", "direct address"]),
        (&file.url, "false", ["SQLite tells nobody", "set wake to poll"]),
    ] {
        let env = [
            ("RELAY_DATABASE_URL", &**url),
            ("RELAY_AMQP_URL", &amqp_url()),
            ("RELAY_TRANSACTION_POOLER", pooler),
        ];
        let mut relay = Process::start("relay", &["run", "--config", stream.config()], &env);
        assert!(!relay.finish().success(), "{}", relay.output);
        assert!(relay.output.contains("wake = notify"), "{}", relay.output);
        assert!(parts.iter().all(|part| relay.output.contains(part)), "{}", relay.output);
    }
    stream.close().await;
}
