//! A handler that swallows a database error has lost its transaction on PostgreSQL, whose COMMIT then
//! rolls back without saying so: that must not count as applied, whatever the handler returns.

use std::sync::Arc;

use diesel::result::Error;
use diesel::{Connection, PgConnection, RunQueryDsl, sql_query};
use inbox::{Ending, Inbox, OnceError, Outcome, Reason, ReplaySafe, Settings};
use message::{Fingerprint, OperationKey};
use support::database::Database;
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Running, Store, parked};

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Once(#[from] OnceError),
    #[error(transparent)]
    Database(#[from] Error),
}

#[test]
fn an_aborted_transaction_is_not_applied() {
    let database = Database::postgres();
    let mut conn = database.pg();
    let operation = OperationKey::new("payment.succeeded", "p1").expect("valid");
    let fingerprint = Fingerprint::of_bytes(b"50");
    let outcome: Result<Outcome<()>, Failed> = conn.transaction(|tx| {
        inbox::once(tx, BILLING, &operation, &fingerprint, |tx| {
            let _ = sql_query("SELECT 1 / 0").execute(tx);
            Ok(())
        })
    });
    assert!(outcome.is_err(), "{outcome:?}");
    let again: Result<Outcome<()>, Failed> =
        conn.transaction(|tx| inbox::once(tx, BILLING, &operation, &fingerprint, |_| Ok(())));
    assert_eq!(again.expect("applies"), Outcome::Applied(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_a_batch_its_neighbours_are_applied_all_the_same() {
    support::bounded(in_a_batch()).await;
}

async fn in_a_batch() {
    let (database, feed) = (PgConnection::database(), Feed::new());
    let mut settings = Settings::default();
    (settings.concurrency, settings.batch) = (1, 10);
    let builder = Inbox::new(BILLING, PgConnection::pool(&database), Arc::new(feed.clone()), "q")
        .on(ReplaySafe, |tx: &mut PgConnection, payment: &Payment, _| {
            PgConnection::credit(tx, &payment.account, payment.cents)?;
            if payment.payment == "p2" {
                let _ = sql_query("SELECT 1 / 0").execute(tx);
            }
            // Nothing to keep, so nothing more is written that would find out.
            Ok(())
        })
        .settings(settings);
    for number in 0..5 {
        feed.deliver(&Payment::new(&format!("p{number}"), number).message());
    }
    let mut running = Running::start(builder);
    let mut endings = running.endings(5).await;
    assert_eq!(endings.pop(), Some(parked(Reason::Failed)));
    assert_eq!(endings, [Ending::Applied; 4]);
    let conn = &mut PgConnection::connection(&database);
    assert_eq!(PgConnection::credits(conn, "a"), [0, 1, 3, 4]);
    assert_eq!(PgConnection::stored(conn, "p2"), None);
    running.stop().await;
}
