//! The connection to PostgreSQL is lost while COMMIT is under way. Whether it took effect is unknown
//! to the consumer; it does not acknowledge, asks again, and the row decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{PgConnection, RunQueryDsl, sql_query};
use inbox::{Ending, Inbox, ReplaySafe, Settings};
use support::eventually;
use support::feed::{Answer, Feed};
use support::inbox::{BILLING, Payment, Running, Store};
use support::proxy::{Direction, Proxy};
use tokio::sync::Notify;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_the_commit_arrived_and_its_answer_did_not() {
    support::bounded(scenario(Direction::ToClient, Ending::Duplicate, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_the_commit_did_not_arrive() {
    support::bounded(scenario(Direction::ToServer, Ending::Applied, 2)).await;
}

/// The proxy stops what goes to the server as the last act of the first run of the handler, or what
/// comes from it while the server is inside COMMIT.
async fn scenario(stopped: Direction, expected: Ending, expected_runs: u32) {
    let database = PgConnection::database();
    let (proxy, through) = Proxy::to_url(&database.url).await;
    let proxy = Arc::new(proxy);
    let db = db::Db::<PgConnection>::open(&through, db::Settings::default()).expect("opens");
    let (runs, handled) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let (counted, tell, held) = (runs.clone(), handled.clone(), proxy.clone());
    // The server waits for this lock inside COMMIT, so that the proxy can stop its answer in time.
    let mut gate = PgConnection::connection(&database);
    gate.batch_execute(
        "CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION wait_at_commit()",
    )
    .expect("a gate");
    if stopped == Direction::ToClient {
        gate.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(42)").expect("closes the gate");
    }
    let feed = Feed::new();
    let mut settings = Settings::default();
    settings.reconnect = Duration::from_millis(5);
    let builder = Inbox::new(BILLING, db, Arc::new(feed.clone()), "q")
        .on(ReplaySafe, move |tx: &mut PgConnection, payment: &Payment, _| {
            PgConnection::credit(tx, &payment.account, payment.cents)?;
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                if stopped == Direction::ToServer {
                    held.hold(stopped);
                }
                tell.notify_one();
            }
            Ok(())
        })
        .settings(settings);
    let mut running = Running::start(builder);
    let number = feed.deliver(&Payment::new("p1", 50).message());
    handled.notified().await;
    let mut conn = PgConnection::connection(&database);
    if stopped == Direction::ToClient {
        eventually("the server is inside COMMIT", async || {
            sql_query(
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            )
            .execute(&mut conn)
            .is_ok_and(|waiting| waiting > 0)
        })
        .await;
        proxy.hold(stopped);
        gate.batch_execute("COMMIT").expect("opens the gate");
        eventually("the commit takes effect", async || {
            PgConnection::stored(&mut conn, "p1").is_some()
        })
        .await;
    }
    assert_eq!(feed.answer(number), None, "acknowledged before the commit was known");
    proxy.cut();
    proxy.resume();
    let told = running.next().await;
    assert_eq!(told.ending, expected);
    assert_eq!(runs.load(Ordering::SeqCst), expected_runs);
    assert_eq!(feed.answer(number), Some(Answer::Ack));
    assert_eq!(PgConnection::credits(&mut conn, "a"), [50]);
    assert!(PgConnection::parked(&mut conn).is_empty());
    // A lost connection is nobody's failure: the first attempt is still the first.
    assert_eq!(told.attempts, u32::from(expected == Ending::Applied));
    running.stop().await;
}
