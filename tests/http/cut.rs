//! Connections that break: the database's during COMMIT, and the client's while its handler runs.

use std::sync::Arc;

use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use inbox::http::telemetry::REQUESTS;
use support::eventually;
use support::gate::Gate;
use support::http::{Order, Server, Shopping, place, policy};
use support::inbox::Store;
use support::proxy::{Direction, Proxy};
use support::recorded::Recorded;

super::on_both!(t21_a_client_that_goes_away_leaves_a_whole_order_behind);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t20_a_commit_whose_answer_is_lost_is_503_and_a_repeat_gets_the_reply() {
    support::bounded(unknown(Direction::ToClient)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t20_a_commit_that_is_lost_is_503_and_a_repeat_runs_the_handler() {
    support::bounded(unknown(Direction::ToServer)).await;
}

/// The proxy stops COMMIT on its way to the server, or its answer on the way back.
async fn unknown(stopped: Direction) {
    let database = PgConnection::database();
    let recorded = Recorded::install();
    let (proxy, through) = Proxy::to_url(&database.url).await;
    let proxy = Arc::new(proxy);
    let db = db::Db::<PgConnection>::open(&through, db::Settings::default()).expect("opens");
    // The server waits for this lock inside COMMIT, or inside the last statement before it, so that the
    // proxy can stop what comes next in time.
    let mut lock = PgConnection::connection(&database);
    lock.batch_execute(match stopped {
        Direction::ToClient => {
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END $$;
             CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON ledger DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION wait()"
        }
        Direction::ToServer => {
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END $$;
             CREATE TRIGGER at_store BEFORE INSERT ON inbox_operations
                 FOR EACH ROW EXECUTE FUNCTION wait()"
        }
    })
    .expect("a gate");
    lock.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(42)").expect("closes the gate");
    let policy = policy();
    let series = format!("{REQUESTS} policy={},ending=unknown", policy.name);
    let shop = Server::start(policy, db, place::<PgConnection>).await;
    let shop = Arc::new(shop);
    let posting = {
        let shop = shop.clone();
        tokio::spawn(async move { shop.order("\"k\"", 5).await })
    };
    let mut conn = PgConnection::connection(&database);
    database.until_one_waits();
    proxy.hold(stopped);
    lock.batch_execute("COMMIT").expect("opens the gate");
    match stopped {
        Direction::ToClient => {
            eventually("the commit takes effect", async || {
                PgConnection::count(&mut conn, "inbox_operations") == 1
            })
            .await;
        }
        Direction::ToServer => {
            eventually("COMMIT is held", async || proxy.held() > 0).await;
        }
    }
    proxy.cut();
    proxy.resume();
    let first = posting.await.expect("no panic");
    first.expect_problem(503, "unknown-outcome");
    assert_eq!(first.header("retry-after"), "1");
    assert_eq!(recorded.counter(&series), Some(1));
    let mut again = shop.order("\"k\"", 5).await;
    eventually("the lost session has ended", async || {
        if again.status == 409 {
            again = shop.order("\"k\"", 5).await;
        }
        again.status != 409
    })
    .await;
    let committed = stopped == Direction::ToClient;
    assert_eq!((again.status, again.is_replayed()), (201, committed), "{again:?}");
    assert_eq!(shop.runs(), if committed { 1 } else { 2 });
    assert_eq!(PgConnection::credits(&mut conn, "pen"), [5]);
    assert_eq!(PgConnection::count(&mut conn, "outbox_messages"), 1);
}

async fn t21_a_client_that_goes_away_leaves_a_whole_order_behind<C: Shopping>() {
    let database = C::database();
    let recorded = Recorded::install();
    let gate = Gate::default();
    let held = gate.clone();
    let policy = policy();
    let counted = |ending| format!("{REQUESTS} policy={},ending={ending}", policy.name);
    let (gone, first) = (counted("gone"), counted("first"));
    let shop = Server::start(policy, C::pool(&database), move |tx: &mut C, order: &Order| {
        held.pass();
        place(tx, order)
    })
    .await;
    let client = shop.order_unread().await;
    gate.entered().await;
    drop(client);
    eventually("it is counted", async || recorded.counter(&gone) == Some(1)).await;
    gate.open();
    let conn = &mut C::connection(&database);
    eventually("the order is committed", async || C::count(conn, "inbox_operations") == 1).await;
    let again = shop.order("\"k\"", 5).await;
    assert_eq!((again.status, again.is_replayed()), (201, true));
    assert_eq!(shop.runs(), 1);
    assert_eq!(C::credits(conn, "pen"), [5]);
    assert_eq!(C::count(conn, "outbox_messages"), 1);
    // Once, and for nothing else.
    assert_eq!((recorded.counter(&gone), recorded.counter(&first)), (Some(1), Some(0)));
}
