//! Requests of one key at the same time.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use diesel::{PgConnection, SqliteConnection};
use futures_util::future::join_all;
use inbox::http::telemetry::{TRANSACTIONS_REPEATED, WAITS};
use inbox::http::{Policy, Reply};
use support::database::Database;
use support::eventually;
use support::gate::Gate;
use support::http::{Answer, JSON, Order, Server, Shopping, place, policy};
use support::inbox::Store;
use support::recorded::Recorded;
use tokio::task::JoinHandle;

type Pg = PgConnection;

super::on_both!(
    t11_two_hundred_parallel_posts_leave_one_order_one_event_and_get_one_reply,
    t11_without_waiting_the_others_get_409_or_the_reply,
    t12_another_body_that_waits_for_the_first_gets_422,
);

/// Runs that were begun and undone, since their look at the key missed the commit of that moment.
pub(super) struct Undone(Recorded, String);

impl Undone {
    pub(super) fn under(policy: &Policy) -> Self {
        Self(Recorded::install(), format!("{TRANSACTIONS_REPEATED} policy={}", policy.name))
    }

    pub(super) fn runs<C: Shopping>(&self) -> usize {
        match C::NAME {
            // There is no such moment: who looks is the only one who writes.
            "sqlite" => 0,
            _ => self.0.counter(&self.1).unwrap_or(0) as usize,
        }
    }
}

async fn t11_two_hundred_parallel_posts_leave_one_order_one_event_and_get_one_reply<C: Shopping>() {
    let database = C::database();
    let mut policy = policy();
    policy.wait = Duration::from_secs(60);
    let undone = Undone::under(&policy);
    let shop = Server::start(policy, C::pool(&database), place::<C>).await;
    let answers = join_all((0..200).map(|_| shop.order("\"k\"", 5))).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (201, &answers[0].body), "{answer:?}");
        assert_eq!(answer.header("location"), answers[0].header("location"));
    }
    assert_eq!(answers.iter().filter(|answer| !answer.is_replayed()).count(), 1);
    assert_eq!(shop.runs(), 1 + undone.runs::<C>());
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "pen"), [5]);
    assert_eq!(C::count(conn, "outbox_messages"), 1);
}

async fn t11_without_waiting_the_others_get_409_or_the_reply<C: Shopping>() {
    let (database, policy) = (C::database(), policy());
    let undone = Undone::under(&policy);
    let shop = Server::start(policy, C::pool(&database), place::<C>).await;
    let answers = join_all((0..100).map(|_| shop.order("\"k\"", 5))).await;
    let (placed, others): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 201);
    for answer in others {
        answer.expect_problem(409, "in-progress");
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(placed.iter().filter(|answer| !answer.is_replayed()).count(), 1);
    assert!(placed.iter().all(|answer| answer.body == placed[0].body), "{placed:?}");
    assert_eq!(shop.runs(), 1 + undone.runs::<C>());
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "pen"), [5]);
    assert_eq!(C::count(conn, "outbox_messages"), 1);
}

/// On PostgreSQL by `wait`; on SQLite in any case, for the write lock.
async fn t12_another_body_that_waits_for_the_first_gets_422<C: Shopping>() {
    let mut policy = policy();
    policy.wait = Duration::from_secs(60);
    let (undone, waits) = (Undone::under(&policy), format!("{WAITS} policy={}", policy.name));
    let (shop, gate, database) = gated::<C>(policy, db::Settings::default()).await;
    let first = post(&shop, 5);
    gate.entered().await;
    let other = post(&shop, 6);
    if C::NAME == "postgres" {
        eventually("the other one waits", async || undone.0.counter(&waits) == Some(1)).await;
    }
    gate.open();
    assert_eq!(first.await.expect("no panic").status, 201);
    other.await.expect("no panic").expect_problem(422, "mismatch");
    assert_eq!(shop.runs(), 1 + undone.runs::<C>());
    assert_eq!(C::credits(&mut C::connection(&database), "pen"), [5]);
}

/// Repeats a request while it runs, which is answered with this problem, and afterwards.
async fn repeat_early_and_late(shop: &Arc<Server>, gate: &Gate, status: u16, problem: &str) {
    let first = post(shop, 5);
    gate.entered().await;
    let early = shop.order("\"k\"", 5).await;
    early.expect_problem(status, problem);
    assert_eq!(early.header("retry-after"), "1");
    gate.open();
    let first = first.await.expect("no panic");
    let again = shop.order("\"k\"", 5).await;
    assert_eq!((again.is_replayed(), again.body), (true, first.body));
    assert_eq!(shop.runs(), 1);
}

/// Nobody can find out there who holds the write lock, and whether it is for this key.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t13_on_sqlite_a_repeat_that_has_waited_for_the_write_lock_gets_503() {
    support::bounded(async {
        let mut policy = policy();
        policy.transaction_retries = 1;
        let mut settings = db::Settings::default();
        settings.lock_timeout = Duration::from_millis(50);
        let (shop, gate, database) = gated::<SqliteConnection>(policy, settings).await;
        repeat_early_and_late(&shop, &gate, 503, "unavailable").await;
        assert_eq!(
            SqliteConnection::credits(&mut SqliteConnection::connection(&database), "pen"),
            [5]
        );
    })
    .await;
}

/// On SQLite a tenant waits for the write lock of any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t10_what_runs_for_one_tenant_is_free_for_another() {
    support::bounded(async {
        let (shop, gate, _database) = two::<Pg>(policy()).await;
        let first = post(&shop, 5);
        gate.entered().await;
        let other = [("idempotency-key", "\"k\""), JSON, ("x-tenant", "other")];
        let free = r#"{"item":"free","cents":1}"#;
        for replayed in [false, true] {
            let answer = shop.send(Method::POST, "/orders", &other, free).await;
            assert_eq!((answer.status, answer.is_replayed()), (200, replayed));
        }
        shop.order("\"k\"", 5).await.expect_problem(409, "in-progress");
        gate.open();
        assert_eq!(first.await.expect("no panic").status, 201);
    })
    .await;
}

/// On SQLite nobody can find out who holds the write lock; there a repeat waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t12_of_two_bodies_at_once_one_runs_and_the_other_gets_409_then_422() {
    support::bounded(async {
        let (shop, gate, database) = two::<Pg>(policy()).await;
        let first = post(&shop, 5);
        gate.entered().await;
        shop.order("\"k\"", 6).await.expect_problem(409, "in-progress");
        gate.open();
        assert_eq!(first.await.expect("no panic").status, 201);
        shop.order("\"k\"", 6).await.expect_problem(422, "mismatch");
        assert_eq!(shop.runs(), 1);
        assert_eq!(Pg::credits(&mut database.pg(), "pen"), [5]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t13_a_repeat_gets_409_while_the_first_runs_and_its_reply_afterwards() {
    support::bounded(async {
        let (shop, gate, _database) = two::<Pg>(policy()).await;
        repeat_early_and_late(&shop, &gate, 409, "in-progress").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t13_a_repeat_that_has_waited_for_long_enough_gets_409() {
    support::bounded(async {
        let (recorded, mut policy) = (Recorded::install(), policy());
        // Not over before the first look, which opens a connection.
        policy.wait = Duration::from_secs(1);
        let waits = format!("{WAITS} policy={}", policy.name);
        let (shop, gate, _database) = two::<Pg>(policy).await;
        let first = post(&shop, 5);
        gate.entered().await;
        shop.order("\"k\"", 5).await.expect_problem(409, "in-progress");
        assert_eq!(recorded.counter(&waits), Some(1));
        gate.open();
        assert_eq!(first.await.expect("no panic").status, 201);
        assert_eq!(shop.runs(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t13_a_repeat_that_may_wait_gets_the_reply_and_holds_no_connection_meanwhile() {
    support::bounded(async {
        let mut policy = policy();
        policy.wait = Duration::from_secs(60);
        let undone = Undone::under(&policy);
        let (shop, gate, database) = two::<Pg>(policy).await;
        let mut posts: Vec<_> = (0..20).map(|_| post(&shop, 5)).collect();
        gate.entered().await;
        // The pool has two connections, and one of them is the first one's.
        let other = shop.post("/refunds", "\"k\"", r#"{"item":"free","cents":1}"#).await;
        assert_eq!(other.status, 200);
        gate.open();
        for post in posts.drain(..) {
            assert_eq!(post.await.expect("no panic").status, 201);
        }
        assert_eq!(shop.runs(), 2 + undone.runs::<Pg>());
        assert_eq!(Pg::credits(&mut database.pg(), "pen"), [5]);
    })
    .await;
}

/// Posts an order in the background.
fn post(shop: &Arc<Server>, cents: i64) -> JoinHandle<Answer> {
    let shop = shop.clone();
    tokio::spawn(async move { shop.order("\"k\"", cents).await })
}

/// A shop with two connections.
async fn two<C: Shopping>(policy: Policy) -> (Arc<Server>, Gate, Database) {
    gated::<C>(policy, db::Settings::default().with_pool_size(2)).await
}

/// A shop whose handler waits for the gate with every pen.
async fn gated<C: Shopping>(
    policy: Policy,
    settings: db::Settings,
) -> (Arc<Server>, Gate, Database) {
    let database = C::database();
    let gate = Gate::default();
    let held = gate.clone();
    let pool = C::pool_with(&database, settings);
    let shop = Server::start(policy, pool, move |tx: &mut C, order: &Order| {
        if order.item == "free" {
            return Ok(Reply::new(StatusCode::OK));
        }
        held.pass();
        place(tx, order)
    });
    (Arc::new(shop.await), gate, database)
}

/// Two services on one database, of which one passes its requests on to the other, key and all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_that_is_passed_on_is_another_service_s_own() {
    support::bounded(async {
        let database = PgConnection::database();
        let gate = Gate::default();
        let held = gate.clone();
        let outer = Server::start(policy(), database.pg_pool(2), move |tx, order: &Order| {
            held.pass();
            place(tx, order)
        });
        let outer = Arc::new(outer.await);
        let inner = Server::start(policy(), database.pg_pool(2), place::<PgConnection>).await;
        let posting = outer.clone();
        let posting = tokio::spawn(async move { posting.order("\"k\"", 5).await });
        gate.entered().await;
        assert_eq!(inner.order("\"k\"", 5).await.status, 201);
        outer.order("\"k\"", 5).await.expect_problem(409, "in-progress");
        gate.open();
        assert_eq!(posting.await.expect("no panic").status, 201);
    })
    .await;
}
