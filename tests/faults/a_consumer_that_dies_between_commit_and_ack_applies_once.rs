//! A consumer in a process of its own aborts at a named point. What it had committed is a duplicate at
//! the redelivery; what it had not is applied then.

use std::process::Command;
use std::sync::Arc;

use diesel::{PgConnection, SqliteConnection};
use inbox::{DuplicateKind, Ending};
use support::broker::{Corner, rabbitmq};
use support::inbox::{Payment, Running, Store, crediting};
use support::process::binary;
use transport::Publisher;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_the_commit_on_postgres() {
    support::bounded(scenario::<PgConnection>("ack", Ending::Duplicate)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_the_commit_on_sqlite() {
    support::bounded(scenario::<SqliteConnection>("ack", Ending::Duplicate)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn before_the_commit_on_postgres() {
    support::bounded(scenario::<PgConnection>("apply", Ending::Applied)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn before_the_commit_on_sqlite() {
    support::bounded(scenario::<SqliteConnection>("apply", Ending::Applied)).await;
}

async fn scenario<C: Store>(point: &'static str, expected: Ending) {
    let database = C::database();
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.pair().await;
    let mut message = Payment::new("p1", 50).message();
    (message.exchange, message.routing_key) = (exchange, "ok".into());
    corner.broker.open_lane().await.expect("a lane").publish(&[message]).await.expect("published");

    let orders = [C::NAME.to_owned(), point.to_owned(), database.url.clone(), queue.clone()];
    let died = tokio::task::spawn_blocking(move || {
        Command::new(binary("doomed_consumer")).args(orders).output().expect("starts")
    });
    let died = died.await.expect("no panic");
    assert!(String::from_utf8_lossy(&died.stderr).contains("dies now"), "{died:?}");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&died.status), Some(6), "{died:?}");

    let conn = &mut C::connection(&database);
    assert_eq!(C::stored(conn, "p1").is_some(), point == "ack");
    let mut running =
        Running::start(crediting(C::pool(&database), Arc::new(corner.broker.clone()), &queue));
    assert_eq!(running.next().await.ending, expected);
    assert_eq!(C::credits(conn, "a"), [50]);
    let redelivered = i64::from(expected == Ending::Duplicate);
    let stored = C::stored(conn, "p1").expect("applied");
    assert_eq!(stored.duplicates_of(DuplicateKind::Redelivery), redelivered);
    assert_eq!(stored.duplicates, redelivered);
    assert_eq!(running.stop().await, []);
    assert_eq!(corner.depth(&queue).await, 0);
    corner.clean().await;
}
