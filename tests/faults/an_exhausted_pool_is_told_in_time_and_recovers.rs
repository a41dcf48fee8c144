//! With every connection of a pool in use a caller waits as long as it was told, gets an error with a
//! name, and is served again once one comes back. Nobody else's pool is touched: a relay has its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use db::{CallError, Db, Settings};
use diesel::result::Error;
use diesel::{PgConnection, SqliteConnection};
use support::database::Database;
use support::eventually;

/// Long enough for opening a connection, which counts.
const WAIT: Duration = Duration::from_secs(3);

async fn scenario<C: db::Backend>(database: &Database) {
    let mut settings = Settings::default().with_pool_size(1);
    settings.acquire_timeout = WAIT;
    let db = Db::<C>::connect(&database.url, settings.clone()).await.expect("connects");
    let other = Db::<C>::connect(&database.url, settings).await.expect("connects");
    let select = |conn: &mut C| conn.batch_execute("SELECT 1");

    let holder = db.get::<Error>().expect("free");
    match db.call(select).await {
        Err(CallError::PoolExhausted { after, reason }) => {
            assert_eq!(after, WAIT, "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let text = db.call(select).await.expect_err("still held").to_string();
    assert!(text.contains("raise the pool size"), "{text}");
    other.call(select).await.expect("its pool is its own");
    // One that waits less long than the pool would, and is gone when the connection comes.
    let begun = Arc::new(AtomicBool::new(false));
    let late = begun.clone();
    let work = move |_: &mut C| {
        late.store(true, Ordering::SeqCst);
        Ok::<_, Error>(())
    };
    let left = db.call_within(Duration::from_millis(10), work).await;
    assert!(matches!(left, Err(CallError::TimedOut { .. })), "{left:?}");
    drop(holder);
    eventually("it is given up", async || Arc::strong_count(&begun) == 1).await;
    assert!(!begun.load(Ordering::SeqCst), "nobody waits for what it does");
    db.call(select).await.expect("free again");

    // A connection that ended badly does not count against the size.
    let failed: Result<(), _> = db.call(|_| -> Result<(), Error> { panic!("as told") }).await;
    assert!(matches!(failed, Err(CallError::Panicked { .. })), "{failed:?}");
    let broken: Result<(), _> = db
        .call(|conn: &mut C| {
            conn.batch_execute("BEGIN")?;
            conn.transaction(|tx| tx.batch_execute("SELECT nothing_of_this_name"))
        })
        .await;
    assert!(matches!(broken, Err(CallError::Work(_))), "{broken:?}");
    db.call(select).await.expect("a fresh one");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    support::bounded(scenario::<PgConnection>(&Database::empty_postgres())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    support::bounded(scenario::<SqliteConnection>(&Database::empty_sqlite())).await;
}
