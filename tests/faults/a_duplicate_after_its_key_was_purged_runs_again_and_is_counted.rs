//! Retention is the window in which duplicates are recognized. One that comes after it applies its
//! operation again, which nobody can prevent any more; but it is counted, by its age. Within the
//! window the key decides, however old the message.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use diesel::{PgConnection, SqliteConnection};
use inbox::retention::{Progress, Retention, purge};
use inbox::{BuildError, Consumer, Ending, Inbox, ReplaySafe};
use message::Message;
use support::feed::{Answer, Feed};
use support::inbox::{Payment, Running, Store};
use support::recorded::Recorded;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_postgres() {
    support::bounded(scenario::<PgConnection>("late-postgres", "applied_at - interval '60 days'"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_sqlite() {
    support::bounded(scenario::<SqliteConnection>("late-sqlite", "applied_at - 60 * 86400000000"))
        .await;
}

fn aged(payment: &str, days: u64) -> Message {
    let mut message = Payment::new(payment, 50).message();
    message.created_at = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
    message
}

async fn scenario<C: Store>(consumer: &'static str, older: &str) {
    let recorded = Recorded::install();
    let beyond = || {
        let series = format!("{} consumer={consumer}", inbox::telemetry::BEYOND_WINDOW);
        recorded.counter(&series).expect("registered")
    };
    let database = C::database();
    let feed = Feed::new();
    let builder = |operations: Duration| {
        let mut retention = Retention::default();
        retention.operations = operations;
        Inbox::new(Consumer(consumer), C::pool(&database), Arc::new(feed.clone()), "q")
            .on(ReplaySafe, |tx: &mut C, payment: &Payment, _| {
                C::credit(tx, &payment.account, payment.cents)?;
                Ok("receipt")
            })
            .retention(retention)
            .concurrency(1)
    };
    // A window in which copies may still be under way is no window.
    let short = builder(Duration::from_secs(60)).build().map(drop);
    assert!(matches!(short, Err(BuildError::WindowTooShort { .. })), "{short:?}");

    let month = Duration::from_secs(30 * 24 * 60 * 60);
    let mut running = Running::start(builder(month));
    let message = aged("p1", 29);
    feed.deliver(&message);
    assert_eq!(running.next().await.ending, Ending::Applied);
    assert_eq!(beyond(), 0);

    // Sixty days later, before the purge: old as it is, its key is known.
    let late = Message { created_at: aged("p1", 89).created_at, ..message };
    let conn = &mut C::connection(&database);
    conn.batch_execute(&format!("UPDATE inbox_operations SET applied_at = {older}")).expect("ages");
    feed.deliver(&late);
    assert_eq!(running.next().await.ending, Ending::Duplicate);
    assert_eq!((beyond(), C::credits(conn, "a").len()), (0, 1));

    // After it.
    let mut retention = Retention::default();
    retention.operations = month;
    let purged = purge(conn, Consumer(consumer), &retention, &mut Progress::default());
    assert_eq!(purged.expect("purges").operations, 1);
    let number = feed.deliver(&late);
    assert_eq!(running.next().await.ending, Ending::Applied);
    assert_eq!(feed.answer(number), Some(Answer::Ack));
    assert_eq!((beyond(), C::credits(conn, "a").len()), (1, 2));

    // From then on it is known again, and a message without a time of its own is no suspect.
    feed.deliver(&late);
    assert_eq!(running.next().await.ending, Ending::Duplicate);
    let timeless = Payment::new("p2", 50).message();
    feed.deliver_raw(|delivery| {
        delivery.kind = Some(timeless.kind.clone());
        delivery.headers.insert(message::name::OPERATION, timeless.operation.clone());
        delivery.payload = timeless.payload.clone();
    });
    assert_eq!(running.next().await.ending, Ending::Applied);
    assert_eq!((beyond(), C::credits(conn, "a").len()), (1, 3));
    running.stop().await;
}
