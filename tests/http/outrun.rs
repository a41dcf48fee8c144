//! A request that looked at its key just before another one committed under it. The moment is too short to be met,
//! so what the other one leaves is put there while the handler runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::http::StatusCode;
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, RunQueryDsl, sql_query};
use inbox::http::telemetry::{REQUESTS, TRANSACTIONS_REPEATED};
use inbox::http::{Failed, Keep, Reply};
use support::gate::Gate;
use support::http::{Order, Server, Shopping, place, policy};
use support::inbox::Store;
use support::recorded::Recorded;

const PUT_ASIDE: &str =
    "WITH gone AS (DELETE FROM inbox_operations RETURNING *) INSERT INTO aside SELECT * FROM gone";

/// How the handler ends whose look was too old.
#[derive(Clone, Copy)]
enum End {
    Commits,
    Refuses,
    Fails,
    Panics,
    /// It takes what the database refused for something else.
    Swallows,
}

async fn gets_the_reply_of_the_one_that_committed(end: End) {
    let database = PgConnection::database();
    let recorded = Recorded::install();
    let mut policy = policy();
    (policy.client_errors, policy.transaction_retries) = (Keep::Free, 0);
    let [replayed, repeated] = [
        format!("{REQUESTS} policy={},ending=replayed", policy.name),
        format!("{TRANSACTIONS_REPEATED} policy={}", policy.name),
    ];
    let url = database.url.clone();
    let handler = move |tx: &mut PgConnection, order: &Order| -> Result<Reply, Failed> {
        let reply = place(tx, order)?;
        let mut other = PgConnection::establish(&url).expect("connects");
        let back = sql_query("INSERT INTO inbox_operations SELECT * FROM aside");
        if back.execute(&mut other).expect("answers") == 0 {
            return Ok(reply);
        }
        match end {
            End::Commits => Ok(reply),
            End::Refuses => Ok(Reply::new(StatusCode::CONFLICT)),
            End::Fails => Err(std::io::Error::other("sold out").into()),
            End::Panics => panic!("sold out"),
            End::Swallows => {
                let _ = sql_query("SELECT 1 / 0").execute(tx);
                Ok(reply)
            }
        }
    };
    let conn = &mut PgConnection::connection(&database);
    conn.batch_execute("CREATE TABLE aside (LIKE inbox_operations)").expect("a place");
    let shop = Server::start(policy, PgConnection::pool(&database), handler).await;
    let first = shop.order("\"k\"", 5).await;
    assert_eq!((first.status, first.is_replayed()), (201, false));
    conn.batch_execute(PUT_ASIDE).expect("is put aside");

    let late = shop.order("\"k\"", 5).await;
    assert_eq!((late.status, late.is_replayed(), &late.body), (201, true, &first.body));
    assert_eq!(shop.runs(), 2);
    assert_eq!(PgConnection::credits(conn, "pen"), [5]);
    assert_eq!(PgConnection::count(conn, "outbox_messages"), 1);
    assert_eq!(PgConnection::count(conn, "inbox_operations"), 1);
    assert_eq!(recorded.counter(&replayed), Some(1));
    assert_eq!(recorded.counter(&repeated), Some(1));
}

macro_rules! ends {
    ($($name:ident = $end:expr;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $name() {
            support::bounded(gets_the_reply_of_the_one_that_committed($end)).await;
        })+
    };
}
ends! {
    who_commits_too_late_gets_the_reply_of_the_one_before = End::Commits;
    who_refuses_too_late_gets_the_reply_of_the_one_before = End::Refuses;
    who_fails_too_late_gets_the_reply_of_the_one_before = End::Fails;
    who_panics_too_late_gets_the_reply_of_the_one_before = End::Panics;
    who_swallows_an_error_too_late_gets_the_reply_of_the_one_before = End::Swallows;
}

/// What the other one left has had its time by the second look: the request is a new one after all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_is_outrun_by_a_key_that_expires_at_once_is_the_next_one() {
    support::bounded(async {
        let database = PgConnection::database();
        let url = database.url.clone();
        let late = AtomicBool::new(false);
        let handler = move |tx: &mut PgConnection, order: &Order| -> Result<Reply, Failed> {
            let reply = place(tx, order)?;
            if !late.load(Ordering::SeqCst) {
                let mut other = PgConnection::establish(&url).expect("connects");
                let back = sql_query("INSERT INTO inbox_operations SELECT * FROM aside");
                late.store(back.execute(&mut other).expect("answers") > 0, Ordering::SeqCst);
            }
            Ok(reply)
        };
        let conn = &mut PgConnection::connection(&database);
        conn.batch_execute("CREATE TABLE aside (LIKE inbox_operations)").expect("a place");
        let shop = Server::start(policy(), PgConnection::pool(&database), handler).await;
        let first = shop.order("\"k\"", 5).await;
        conn.batch_execute(PUT_ASIDE).expect("is put aside");
        conn.batch_execute("UPDATE aside SET applied_at = applied_at - interval '25 hours'")
            .expect("is older");

        let second = shop.order("\"k\"", 6).await;
        assert_eq!((second.status, second.is_replayed()), (201, false), "{second:?}");
        assert_ne!(second.body, first.body);
        assert_eq!(shop.runs(), 3, "one of them in vain");
        assert_eq!(PgConnection::credits(conn, "pen"), [5, 6]);
        assert_eq!(shop.order("\"k\"", 6).await.body, second.body);
    })
    .await;
}

/// Who has expired by the look can have been replaced before it is deleted: that one stays, and has the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_replaces_an_expired_key_does_not_delete_what_has_just_replaced_it() {
    support::bounded(async {
        let database = PgConnection::database();
        let shop = Arc::new(
            Server::start(policy(), PgConnection::pool(&database), place::<PgConnection>).await,
        );
        let first = shop.order("\"k\"", 5).await;
        let (mut lock, conn) = (PgConnection::connection(&database), &mut database.pg());
        // Before DELETE looks for its rows, and after it has decided which commits it sees.
        lock.batch_execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$;
             CREATE TRIGGER at_delete BEFORE DELETE ON inbox_operations
                 FOR EACH STATEMENT EXECUTE FUNCTION wait();
             UPDATE inbox_operations SET applied_at = applied_at - interval '25 hours'",
        )
        .expect("a gate, and an expired key");
        lock.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(42)").expect("closes the gate");
        let posting = shop.clone();
        let late = tokio::spawn(async move { posting.order("\"k\"", 5).await });
        database.until_one_waits();
        conn.batch_execute("UPDATE inbox_operations SET applied_at = clock_timestamp()")
            .expect("is as new");
        lock.batch_execute("COMMIT").expect("opens the gate");
        let late = late.await.expect("no panic");
        assert_eq!((late.status, late.is_replayed(), &late.body), (201, true, &first.body));
        assert_eq!(PgConnection::credits(conn, "pen"), [5]);
        assert_eq!(PgConnection::count(conn, "outbox_messages"), 1);
    })
    .await;
}

/// A failure whose cause is looked for: nobody gets past that before the gate is open.
#[derive(Debug, thiserror::Error)]
#[error("sold out")]
struct Slow(#[source] Unknown);

#[derive(Debug)]
struct Unknown(Gate);

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody knows why")
    }
}

impl std::error::Error for Unknown {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        tokio::task::block_in_place(|| self.0.pass());
        None
    }
}

/// Between a handler's failure, which is undone by then, and the moment when it is kept another request can begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failure_is_not_kept_under_whoever_runs_by_then() {
    support::bounded(async {
        let database = PgConnection::database();
        let mut policy = policy();
        policy.server_errors = Keep::Stored;
        let [fails, runs] = [Gate::default(), Gate::default()];
        let (failing, running, run) = (fails.clone(), runs.clone(), AtomicUsize::new(0));
        let handler = move |tx: &mut PgConnection, order: &Order| -> Result<Reply, Failed> {
            let reply = place(tx, order)?;
            if run.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(Slow(Unknown(failing.clone())).into());
            }
            running.pass();
            Ok(reply)
        };
        let shop = Arc::new(Server::start(policy, PgConnection::pool(&database), handler).await);
        let post = || {
            let shop = shop.clone();
            tokio::spawn(async move { shop.order("\"k\"", 5).await })
        };
        let first = post();
        fails.entered().await;
        let second = post();
        runs.entered().await;
        fails.open();
        first.await.expect("no panic").expect_problem(500, "failed");
        runs.open();
        let second = second.await.expect("no panic");
        assert_eq!((second.status, second.is_replayed()), (201, false), "{second:?}");
        let again = shop.order("\"k\"", 5).await;
        assert_eq!((again.status, again.is_replayed(), &again.body), (201, true, &second.body));
        assert_eq!(PgConnection::credits(&mut database.pg(), "pen"), [5]);
        assert_eq!(shop.runs(), 2);
    })
    .await;
}
