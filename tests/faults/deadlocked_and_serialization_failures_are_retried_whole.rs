//! A transaction that lost against another one is run again from its first statement, without costing
//! the message an attempt, and a bounded number of times.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{PgConnection, SqliteConnection};
use inbox::{Context, Ending, Inbox, Reason, ReplaySafe, Settings};
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Running, Store, crediting, parked};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deadlock_between_two_handlers_ends_with_both_applied() {
    support::bounded(async {
        let database = PgConnection::database();
        let mut conn = PgConnection::connection(&database);
        conn.batch_execute(
            "CREATE TABLE locked (id int PRIMARY KEY); INSERT INTO locked VALUES (1), (2)",
        )
        .expect("creates");
        let feed = Feed::new();
        let (runs, both_hold_one) = (Arc::new(AtomicU32::new(0)), Arc::new(Barrier::new(2)));
        let counted = runs.clone();
        let mut settings = Settings::default();
        settings.max_attempts = 1;
        let builder =
            Inbox::new(BILLING, PgConnection::pool(&database), Arc::new(feed.clone()), "q")
                .on(ReplaySafe, move |tx: &mut PgConnection, payment: &Payment, _: &Context<'_>| {
                    PgConnection::credit(tx, "a", payment.cents)?;
                    let order = if payment.payment == "up" { ["1", "2"] } else { ["2", "1"] };
                    let first_runs = counted.fetch_add(1, Ordering::SeqCst) < 2;
                    tx.batch_execute(&format!(
                        "SELECT 1 FROM locked WHERE id = {} FOR UPDATE",
                        order[0]
                    ))?;
                    if first_runs {
                        both_hold_one.wait();
                    }
                    tx.batch_execute(&format!(
                        "SELECT 1 FROM locked WHERE id = {} FOR UPDATE",
                        order[1]
                    ))?;
                    Ok(())
                })
                .settings(settings);
        let mut running = Running::start(builder);
        feed.deliver(&Payment::new("up", 1).message());
        feed.deliver(&Payment::new("down", 2).message());
        for _ in 0..2 {
            let told = running.next().await;
            assert_eq!((told.ending, told.attempts), (Ending::Applied, 1));
        }
        assert!(runs.load(Ordering::SeqCst) >= 3, "there was no deadlock");
        let mut credits = PgConnection::credits(&mut conn, "a");
        credits.sort_unstable();
        assert_eq!(credits, [1, 2]);
        running.stop().await;
    })
    .await;
}

/// A handler that loses `losses` times and then wins: how it ends, and how often it ran.
async fn losing(losses: u32) -> (Ending, u32, Vec<i64>, Vec<Reason>) {
    let database = PgConnection::database();
    let feed = Feed::new();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let mut settings = Settings::default();
    settings.max_attempts = 1;
    settings.transaction_retries = 2;
    let builder = Inbox::new(BILLING, PgConnection::pool(&database), Arc::new(feed.clone()), "q")
        .on(ReplaySafe, move |tx: &mut PgConnection, payment: &Payment, _: &Context<'_>| {
            PgConnection::credit(tx, "a", payment.cents)?;
            if counted.fetch_add(1, Ordering::SeqCst) < losses {
                tx.batch_execute("DO $$ BEGIN RAISE serialization_failure; END $$")?;
            }
            Ok(())
        })
        .settings(settings);
    let mut running = Running::start(builder);
    feed.deliver(&Payment::new("p1", 1).message());
    let told = running.next().await;
    running.stop().await;
    let conn = &mut PgConnection::connection(&database);
    let reasons = PgConnection::parked(conn).iter().map(|row| row.reason).collect();
    (told.ending, runs.load(Ordering::SeqCst), PgConnection::credits(conn, "a"), reasons)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_serialization_failure_repeats_the_whole_transaction() {
    support::bounded(async {
        assert_eq!(losing(2).await, (Ending::Applied, 3, vec![1], vec![]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_never_wins_becomes_a_failed_attempt() {
    support::bounded(async {
        let exhausted = parked(Reason::Exhausted);
        assert_eq!(losing(u32::MAX).await, (exhausted, 3, vec![], vec![Reason::Exhausted]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_busy_sqlite_is_waited_for_without_an_attempt() {
    support::bounded(async {
        let database = SqliteConnection::database();
        let mut guarded = db::Settings::default();
        guarded.lock_timeout = Duration::from_millis(5);
        let db = SqliteConnection::pool_with(&database, guarded);
        let feed = Feed::new();
        let mut settings = Settings::default();
        settings.max_attempts = 1;
        settings.reconnect = Duration::from_millis(5);
        settings.hold = Duration::from_millis(50);
        let mut running =
            Running::start(crediting(db, Arc::new(feed.clone()), "q").settings(settings));
        let mut other = SqliteConnection::connection(&database);
        other.batch_execute("BEGIN IMMEDIATE").expect("takes the write lock");
        feed.deliver(&Payment::new("p1", 1).message());
        let mut told = running.next().await;
        assert_eq!((told.ending, told.attempts), (Ending::Unsettled, 0));
        other.batch_execute("COMMIT").expect("commits");
        // The lot's own look may have the file for a moment.
        for _ in 0..10 {
            if told.ending != Ending::Unsettled {
                break;
            }
            feed.deliver(&Payment::new("p1", 1).message());
            told = running.next().await;
        }
        assert_eq!((told.ending, told.attempts), (Ending::Applied, 1));
        assert_eq!(SqliteConnection::credits(&mut other, "a"), [1]);
        running.stop().await;
    })
    .await;
}
