//! Handlers that refuse, fail and panic.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use axum::http::StatusCode;
use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::{PgConnection, RunQueryDsl, sql_query};
use inbox::http::telemetry::{REQUESTS, TRANSACTIONS_REPEATED};
use inbox::http::{Failed, Keep, Reply};
use support::http::{Order, Server, Shopping, place, policy};
use support::inbox::Store;
use support::recorded::Recorded;

super::on_both!(
    t14_a_4xx_of_the_business_is_kept_with_its_effects_or_undone_as_the_policy_says,
    t15_what_is_refused_before_the_handler_leaves_the_key_free,
    t16_a_failure_is_undone_and_the_key_is_free_unless_the_policy_keeps_the_500,
    t16_where_a_5xx_is_kept_a_returned_one_keeps_its_effects_and_a_panic_none,
    t17_a_panic_is_undone_and_the_next_request_is_as_the_first,
    t26_contention_repeats_the_transaction_and_only_the_last_run_leaves_anything,
    contention_without_end_is_503_and_the_key_is_free,
);

/// Books, and then refuses with a status.
fn refuse<C: Shopping>(
    status: StatusCode,
) -> impl Fn(&mut C, &Order) -> Result<Reply, Failed> + Send + Sync + 'static {
    move |tx: &mut C, order: &Order| {
        place(tx, order)?;
        Ok(Reply::new(status).with_body("out of stock"))
    }
}

async fn t14_a_4xx_of_the_business_is_kept_with_its_effects_or_undone_as_the_policy_says<
    C: Shopping,
>() {
    let database = C::database();
    let (kept, mut free) = (policy(), policy());
    free.client_errors = Keep::Free;
    let conn = &mut C::connection(&database);
    let shop = Server::start(kept, C::pool(&database), refuse::<C>(StatusCode::CONFLICT)).await;
    for replayed in [false, true] {
        let answer = shop.order("\"k\"", 5).await;
        assert_eq!((answer.status, answer.is_replayed()), (409, replayed));
        assert_eq!(answer.body, "out of stock");
    }
    assert_eq!((shop.runs(), C::credits(conn, "pen")), (1, vec![5]));

    let shop = Server::start(free, C::pool(&database), refuse::<C>(StatusCode::CONFLICT)).await;
    for _ in 0..2 {
        let answer = shop.order("\"k\"", 5).await;
        assert_eq!(
            (answer.status, answer.is_replayed(), &*answer.body),
            (409, false, "out of stock")
        );
    }
    assert_eq!((shop.runs(), C::credits(conn, "pen")), (2, vec![5]));
    assert_eq!(C::count(conn, "outbox_messages"), 1);
}

async fn t15_what_is_refused_before_the_handler_leaves_the_key_free<C: Shopping>() {
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), |tx: &mut C, order: &Order| {
        if order.cents < 0 {
            return Err(Failed::reply(Reply::new(StatusCode::UNPROCESSABLE_ENTITY)));
        }
        place(tx, order)
    })
    .await;
    shop.post("/orders", "\"k\"", "{\"item\":").await.expect_problem(400, "bad-body");
    shop.post("/orders", "\"k\"", r#"{"item":"pen"}"#).await.expect_problem(400, "bad-body");
    let text = [("idempotency-key", "\"k\""), ("content-type", "text/plain")];
    let answer = shop.send(axum::http::Method::POST, "/orders", &text, "pen").await;
    answer.expect_problem(415, "unsupported-media-type");
    assert_eq!(shop.runs(), 0);
    assert_eq!(shop.order("\"k\"", -5).await.status, 422);
    let good = shop.order("\"k\"", 5).await;
    assert_eq!((good.status, good.is_replayed()), (201, false));
    assert!(shop.order("\"k\"", 5).await.is_replayed());
}

/// Fails the first time, after it has booked.
fn failing<C: Shopping>() -> impl Fn(&mut C, &Order) -> Result<Reply, Failed> + Send + Sync {
    let runs = AtomicUsize::new(0);
    move |tx: &mut C, order: &Order| {
        let reply = place(tx, order)?;
        if runs.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(std::io::Error::other("the warehouse is on fire").into());
        }
        Ok(reply)
    }
}

async fn t16_a_failure_is_undone_and_the_key_is_free_unless_the_policy_keeps_the_500<
    C: Shopping,
>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let shop = Server::start(policy(), C::pool(&database), failing::<C>()).await;
    let answer = shop.order("\"k\"", 5).await;
    answer.expect_problem(500, "failed");
    assert!(!answer.body.contains("fire"), "{}", answer.body);
    assert_eq!(C::credits(conn, "pen"), Vec::<i64>::new());
    assert_eq!(C::count(conn, "outbox_messages"), 0);
    let again = shop.order("\"k\"", 5).await;
    assert_eq!((again.status, again.is_replayed()), (201, false));

    // A 5xx that is returned is as good as a failure.
    let shop =
        Server::start(policy(), C::pool(&database), refuse::<C>(StatusCode::BAD_GATEWAY)).await;
    for _ in 0..2 {
        let answer = shop.order("\"k\"", 5).await;
        assert_eq!((answer.status, answer.is_replayed()), (502, false));
    }
    assert_eq!(C::credits(conn, "pen"), [5]);

    let mut stripe = policy();
    stripe.server_errors = Keep::Stored;
    let shop = Server::start(stripe, C::pool(&database), failing::<C>()).await;
    let spent = shop.order("\"k\"", 7).await;
    spent.expect_problem(500, "spent");
    let again = shop.order("\"k\"", 7).await;
    assert_eq!((again.status, again.is_replayed(), again.body), (500, true, spent.body));
    assert_eq!((shop.runs(), C::credits(conn, "pen")), (1, vec![5]));
}

async fn t16_where_a_5xx_is_kept_a_returned_one_keeps_its_effects_and_a_panic_none<C: Shopping>() {
    let database = C::database();
    let mut stripe = policy();
    stripe.server_errors = Keep::Stored;
    let conn = &mut C::connection(&database);
    let shop = Server::start(stripe, C::pool(&database), |tx: &mut C, order: &Order| {
        place(tx, order)?;
        assert_ne!(order.cents, 6, "a fault of the handler");
        Ok(Reply::new(StatusCode::BAD_GATEWAY).with_body("no answer from the bank"))
    })
    .await;
    for replayed in [false, true] {
        let answer = shop.order("\"returned\"", 5).await;
        assert_eq!((answer.status, answer.is_replayed()), (502, replayed));
        assert_eq!(answer.body, "no answer from the bank");
    }
    let spent = shop.order("\"panicked\"", 6).await;
    spent.expect_problem(500, "spent");
    let again = shop.order("\"panicked\"", 6).await;
    assert_eq!((again.status, again.is_replayed(), again.body), (500, true, spent.body));
    assert_eq!((shop.runs(), C::credits(conn, "pen")), (2, vec![5]));
    assert_eq!(C::count(conn, "outbox_messages"), 1);
}

async fn t17_a_panic_is_undone_and_the_next_request_is_as_the_first<C: Shopping>() {
    let database = C::database();
    let recorded = Recorded::install();
    let policy = policy();
    let series = format!("{REQUESTS} policy={},ending=panicked", policy.name);
    let runs = AtomicUsize::new(0);
    // One connection: a transaction that the panic left open in the pool would be the next one's.
    let mut settings = db::Settings::default();
    settings.pool_size = 1;
    let pool = C::pool_with(&database, settings);
    let shop = Server::start(policy, pool, move |tx: &mut C, order: &Order| {
        let reply = place(tx, order)?;
        assert_ne!(runs.fetch_add(1, Ordering::SeqCst), 0, "a fault of the handler");
        Ok(reply)
    })
    .await;
    shop.order("\"k\"", 5).await.expect_problem(500, "failed");
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "pen"), Vec::<i64>::new());
    let again = shop.order("\"k\"", 5).await;
    assert_eq!((again.status, again.is_replayed()), (201, false));
    assert!(shop.order("\"k\"", 5).await.is_replayed());
    assert_eq!(C::credits(conn, "pen"), [5]);
    assert_eq!(recorded.counter(&series), Some(1));
}

/// Loses against nobody, as the database would say it. On PostgreSQL the server says so itself.
fn lose<C: Shopping>(tx: &mut C) -> Result<(), Failed> {
    if C::NAME == "postgres" {
        C::raise_serialization_failure(tx)?;
    }
    let text = Box::new("lost against another one".to_owned());
    Err(Error::DatabaseError(DatabaseErrorKind::SerializationFailure, text).into())
}

async fn t26_contention_repeats_the_transaction_and_only_the_last_run_leaves_anything<
    C: Shopping,
>() {
    let database = C::database();
    let recorded = Recorded::install();
    let policy = policy();
    let series = format!("{TRANSACTIONS_REPEATED} policy={}", policy.name);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let shop = Server::start(policy, C::pool(&database), move |tx: &mut C, order: &Order| {
        let reply = place(tx, order)?;
        if counted.fetch_add(1, Ordering::SeqCst) < 2 {
            lose(tx)?;
        }
        Ok(reply)
    })
    .await;
    let first = shop.order("\"k\"", 5).await;
    assert_eq!((first.status, first.is_replayed()), (201, false));
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    assert_eq!(recorded.counter(&series), Some(2));
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "pen"), [5]);
    assert_eq!(C::count(conn, "outbox_messages"), 1);
    assert_eq!(shop.order("\"k\"", 5).await.body, first.body);
}

async fn contention_without_end_is_503_and_the_key_is_free<C: Shopping>() {
    let database = C::database();
    let mut policy = policy();
    policy.transaction_retries = 2;
    let recorded = Recorded::install();
    let unavailable = format!("{REQUESTS} policy={},ending=unavailable", policy.name);
    let runs = AtomicUsize::new(0);
    let shop = Server::start(policy, C::pool(&database), move |tx: &mut C, order: &Order| {
        if runs.fetch_add(1, Ordering::SeqCst) < 3 {
            lose(tx)?;
        }
        place(tx, order)
    })
    .await;
    let busy = shop.order("\"k\"", 5).await;
    busy.expect_problem(503, "unavailable");
    assert_eq!(busy.header("retry-after"), "1");
    assert_eq!((shop.runs(), recorded.counter(&unavailable)), (3, Some(1)));
    assert_eq!(shop.order("\"k\"", 5).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t26_of_two_orders_in_a_deadlock_both_are_placed_once() {
    support::bounded(async {
        let database = PgConnection::database();
        let recorded = Recorded::install();
        let policy = policy();
        let series = format!("{TRANSACTIONS_REPEATED} policy={}", policy.name);
        let conn = &mut PgConnection::connection(&database);
        conn.batch_execute(
            "CREATE TABLE stock (item text PRIMARY KEY, left_over int);
             INSERT INTO stock VALUES ('ink', 10), ('pen', 10)",
        )
        .expect("a stock");
        let (runs, both_have_one) = (AtomicUsize::new(0), Barrier::new(2));
        let shop = Server::start(policy, database.pg_pool(2), move |tx, order: &Order| {
            let reply = place(tx, order)?;
            let other = if order.item == "pen" { "ink" } else { "pen" };
            let first = runs.fetch_add(1, Ordering::SeqCst) < 2;
            for item in [&*order.item, other] {
                let take = "UPDATE stock SET left_over = left_over - 1 WHERE item = ";
                PgConnection::execute(tx, &format!("{take}'{item}'"))?;
                if first && item != other {
                    both_have_one.wait();
                }
            }
            Ok(reply)
        })
        .await;
        let [ink, pen] = ["ink", "pen"].map(|item| format!(r#"{{"item":"{item}","cents":5}}"#));
        let (ink, pen) =
            tokio::join!(shop.post("/orders", "\"i\"", &ink), shop.post("/orders", "\"p\"", &pen));
        assert_eq!((ink.status, pen.status), (201, 201), "{ink:?} {pen:?}");
        assert_eq!((shop.runs(), recorded.counter(&series)), (3, Some(1)));
        assert_eq!(PgConnection::count(conn, "stock WHERE left_over = 8"), 2);
        for item in ["ink", "pen"] {
            assert_eq!(PgConnection::credits(conn, item), [5]);
        }
        assert_eq!(PgConnection::count(conn, "outbox_messages"), 2);
    })
    .await;
}

/// COMMIT alone would answer well and roll back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_swallows_a_database_error_has_not_succeeded() {
    support::bounded(async {
        let database = PgConnection::database();
        let mut policy = policy();
        policy.required = false;
        let shop =
            Server::start(policy, database.pg_pool(2), |tx: &mut PgConnection, order: &Order| {
                let reply = place(tx, order)?;
                let _ = sql_query("SELECT 1 / 0").execute(tx);
                Ok(reply)
            })
            .await;
        shop.order("\"k\"", 5).await.expect_problem(500, "failed");
        let pen = r#"{"item":"pen","cents":5}"#;
        let keyless = shop.send(axum::http::Method::POST, "/orders", &[support::http::JSON], pen);
        keyless.await.expect_problem(500, "failed");
    })
    .await;
}
