//! The diesel-async form of `once` has the same outcomes and writes the same rows.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use inbox::DuplicateKind::{Concurrent, OtherMessage, Redelivery};
use inbox::{Consumer, Once, OnceError, Outcome};
use message::Fingerprint;
use support::database::Database;
use support::inbox::{BILLING, Payment, Store};
use tokio::sync::oneshot;

async fn connect(database: &Database) -> AsyncPgConnection {
    AsyncPgConnection::establish(&database.url).await.expect("connects")
}

async fn credit(tx: &mut AsyncPgConnection, cents: i64) -> QueryResult<()> {
    let insert = diesel::sql_query("INSERT INTO ledger (account, cents) VALUES ('a', $1)");
    insert.bind::<BigInt, _>(cents).execute(tx).await.map(drop)
}

async fn apply(
    tx: &mut AsyncPgConnection,
    content: &[u8],
    receipt: &str,
) -> Result<Outcome<String>, Error> {
    let (key, fingerprint) = (Payment::key("p1"), Fingerprint::of_bytes(content));
    inbox::diesel_async::once(tx, BILLING, &key, &fingerprint, async |tx: &mut _| {
        credit(tx, 50).await?;
        Ok(receipt.to_owned())
    })
    .await
}

/// On threads of its own: diesel's connections block.
async fn look<T: Send + 'static>(
    database: &Database,
    look: impl FnOnce(&mut PgConnection) -> T + Send + 'static,
) -> T {
    let url = database.url.clone();
    let looked = tokio::task::spawn_blocking(move || {
        look(&mut PgConnection::establish(&url).expect("connects"))
    });
    looked.await.expect("no panic")
}

async fn credits(database: &Database) -> Vec<i64> {
    look(database, |conn| PgConnection::credits(conn, "a")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_is_the_same() {
    let database = PgConnection::database();
    let mut conn = connect(&database).await;
    let mut once = async |content: &'static [u8], receipt: &'static str| {
        conn.transaction(async |tx| apply(tx, content, receipt).await).await.expect("commits")
    };
    assert_eq!(once(b"50", "one").await, Outcome::Applied("one".into()));
    assert_eq!(once(b"50", "two").await, Outcome::Duplicate("one".into()));
    assert!(matches!(once(b"99", "three").await, Outcome::Conflict { .. }));
    assert_eq!(credits(&database).await, [50]);

    // The two forms share their rows.
    let other = look(&database, |conn| {
        let (key, fingerprint) = (Payment::key("p1"), Fingerprint::of_bytes(b"50"));
        let once = Once::new(BILLING, &key, &fingerprint);
        conn.transaction(|tx| once.run(tx, |_| Err::<String, Error>(Error::NotFound)))
    });
    assert_eq!(other.await.expect("commits"), Outcome::Duplicate("one".into()));

    look(&database, |conn| {
        let drop = "UPDATE inbox_operations SET result = NULL, result_dropped_at = now()";
        conn.batch_execute(drop).expect("drops");
    })
    .await;
    assert!(matches!(once(b"50", "four").await, Outcome::Forgotten { .. }));
    let row = look(&database, |conn| PgConnection::stored(conn, "p1").expect("stored")).await;
    assert_eq!((row.duplicates, row.conflicts), (3, 1));
    assert_eq!(row.duplicates_of(OtherMessage), 3);
    assert!(row.finished_at >= Some(row.applied_at));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_leave_nothing() {
    let database = PgConnection::database();
    let mut conn = connect(&database).await;
    let outside = apply(&mut conn, b"50", "one").await;
    assert!(outside.is_err_and(|error| error.to_string().contains("no transaction")));
    assert!(look(&database, |conn| PgConnection::stored(conn, "p1")).await.is_none());

    // The handler's own error comes back, and who commits all the same has not applied it.
    let (key, fingerprint) = (Payment::key("p1"), Fingerprint::of_bytes(b"50"));
    conn.transaction(async |tx| {
        let failed: Result<Outcome<()>, Error> =
            inbox::diesel_async::once(tx, BILLING, &key, &fingerprint, async |_: &mut _| {
                Err(Error::NotFound)
            })
            .await;
        assert_eq!(failed, Err(Error::NotFound));
        Ok::<_, Error>(())
    })
    .await
    .expect("commits");
    let rolled_back: Result<(), Error> = conn
        .transaction(async |tx| {
            let applied = apply(tx, b"50", "one").await?;
            assert_eq!(applied, Outcome::Applied("one".into()));
            Err(Error::RollbackTransaction)
        })
        .await;
    assert!(rolled_back.is_err());
    assert!(look(&database, |conn| PgConnection::stored(conn, "p1")).await.is_none());
    assert!(credits(&database).await.is_empty());

    let refused: Result<Outcome<()>, OnceError> = conn
        .transaction(async |tx| {
            let nobody = Consumer("");
            inbox::diesel_async::once(tx, nobody, &key, &fingerprint, async |_: &mut _| Ok(()))
                .await
        })
        .await;
    assert!(matches!(refused, Err(OnceError::Invalid(_))), "{refused:?}");
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

async fn until_one_waits(database: &Database) {
    support::eventually("the second waits", async || {
        look(database, |conn| {
            let query = "SELECT count(*) AS n FROM pg_stat_activity
                         WHERE datname = current_database() AND wait_event_type = 'Lock'";
            diesel::RunQueryDsl::get_result::<Number>(diesel::sql_query(query), conn)
                .expect("answers")
                .n
                > 0
        })
        .await
    })
    .await;
}

/// Ends a first transaction only when a second one, begun before it, waits for its claim.
async fn second_while_first(database: &Database, commit: bool) -> Outcome<String> {
    let (mut first, mut second) = (connect(database).await, connect(database).await);
    let (begins, has_begun) = oneshot::channel();
    let (claimed, is_claimed) = oneshot::channel();
    let waiting = tokio::spawn(async move {
        let waited = second.transaction(async |tx| {
            diesel::sql_query("SELECT 1").execute(tx).await?;
            begins.send(()).expect("somebody listens");
            is_claimed.await.expect("the first claims");
            apply(tx, b"50", "second").await
        });
        waited.await.expect("commits")
    });
    has_begun.await.expect("it begins");
    let (go, may_go) = oneshot::channel();
    let ending = first.transaction(async |tx| {
        assert_eq!(apply(tx, b"50", "first").await?, Outcome::Applied("first".into()));
        claimed.send(()).expect("somebody listens");
        may_go.await.expect("somebody looks");
        if commit { Ok(()) } else { Err(Error::RollbackTransaction) }
    });
    let watching = async {
        until_one_waits(database).await;
        go.send(()).expect("somebody listens");
    };
    let (ended, ()): (Result<(), Error>, ()) = tokio::join!(ending, watching);
    assert_eq!(ended.is_ok(), commit);
    waiting.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concurrent_duplicate_waits_and_gets_the_first_one_s_result() {
    let database = PgConnection::database();
    assert_eq!(second_while_first(&database, true).await, Outcome::Duplicate("first".into()));
    assert_eq!(credits(&database).await, [50]);
    let row = look(&database, |conn| PgConnection::stored(conn, "p1").expect("stored")).await;
    assert_eq!(row.duplicates_of(Concurrent), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rollback_the_one_that_waited_applies() {
    let database = PgConnection::database();
    assert_eq!(second_while_first(&database, false).await, Outcome::Applied("second".into()));
    assert_eq!(credits(&database).await, [50]);
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    lock_timeout: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn options_hold_here_too() {
    let database = PgConnection::database();
    let (mut first, mut second) = (connect(&database).await, connect(&database).await);
    let (key, fingerprint) = (Payment::key("p1"), Fingerprint::of_bytes(b"50"));
    let once = || Once::new(BILLING, &key, &fingerprint).message_id("m1");
    let never = async |_: &mut AsyncPgConnection| Err::<String, _>(Error::NotFound);
    first
        .transaction(async |tx| {
            let run = inbox::diesel_async::run(once(), tx, async |_: &mut _| Ok("one".to_owned()));
            let applied: Result<_, Error> = run.await;
            assert_eq!(applied?, Outcome::Applied("one".into()));
            second
                .transaction(async |tx| {
                    let impatient = once().wait_at_most(Duration::from_millis(1));
                    let outcome = inbox::diesel_async::run(impatient, tx, never).await?;
                    assert_eq!(outcome, Outcome::InProgress);
                    // The transaction goes on.
                    credit(tx, 1).await
                })
                .await
        })
        .await
        .expect("both commit");
    let again = once().redelivered(true).wait_at_most(Duration::from_secs(5));
    let outcome = second
        .transaction(async |tx| {
            diesel::sql_query("SET LOCAL lock_timeout = '7s'").execute(tx).await?;
            let outcome = inbox::diesel_async::run(again, tx, never).await?;
            let shown = diesel::sql_query("SHOW lock_timeout").get_result::<Setting>(tx).await?;
            assert_eq!(shown.lock_timeout, "7s");
            Ok::<_, Error>(outcome)
        })
        .await
        .expect("commits");
    assert_eq!(outcome, Outcome::Duplicate("one".into()));
    let row = look(&database, |conn| PgConnection::stored(conn, "p1").expect("stored")).await;
    assert_eq!((row.message_id.as_deref(), row.duplicates_of(Redelivery)), (Some("m1"), 1));
    assert_eq!(credits(&database).await, [1]);
}
