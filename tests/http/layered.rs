//! The layer, for handlers that are no transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, SET_COOKIE};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use futures_util::future::join_all;
use inbox::http::telemetry::REQUESTS;
use inbox::http::{Idempotency, Keep, Policy};
use message::OperationKey;
use support::effects::{CHARGE, Provider, effects};
use support::eventually;
use support::gate::Gate;
use support::http::{JSON, Server, Shopping, policy};
use support::recorded::Recorded;

super::on_both!(
    the_layer_runs_a_handler_once_and_gives_its_reply_again,
    the_layer_runs_one_of_many_at_once,
    t08_in_the_layer_method_and_route_are_another_key_and_path_or_query_another_request,
    t14_in_the_layer_a_4xx_is_kept_by_default,
    a_handler_that_runs_twice_finds_the_effect_of_its_request,
    t30_a_stream_or_a_large_reply_passes_and_a_repeat_gets_409,
    the_layer_frees_the_key_after_a_panic_or_a_5xx,
    t16_in_the_layer_a_5xx_and_a_panic_are_kept_where_the_policy_says_so,
    the_layer_finishes_a_run_whose_client_has_gone,
    the_layer_stores_nothing_of_safe_methods_or_without_a_key,
);

async fn shop<C, F>(
    policy: Policy,
    database: &support::database::Database,
    handler: impl Fn(usize) -> F + Clone + Send + Sync + 'static,
) -> Server
where
    C: Shopping,
    F: Future<Output = Response> + Send + 'static,
{
    let front = Idempotency::new(policy, C::pool(database)).expect("a good policy");
    Server::layered(&front, handler).await
}

async fn numbered(run: usize) -> Response {
    (StatusCode::CREATED, [(SET_COOKIE, "canary")], format!("run {run}")).into_response()
}

async fn the_layer_runs_a_handler_once_and_gives_its_reply_again<C: Shopping>() {
    let database = C::database();
    let shop = shop::<C, _>(policy(), &database, numbered).await;
    let first = shop.order("\"k\"", 5).await;
    assert_eq!((first.status, &*first.body, first.header("set-cookie")), (201, "run 1", "canary"));
    let again = shop.order("\"k\"", 5).await;
    assert_eq!((again.status, &*again.body, again.is_replayed()), (201, "run 1", true));
    assert_eq!(again.header("set-cookie"), "");
    assert_eq!(again.header("content-type"), first.header("content-type"));
    shop.order("\"k\"", 6).await.expect_problem(422, "mismatch");
    let other = [("idempotency-key", "\"k\""), JSON, ("x-tenant", "other")];
    let body = r#"{"item":"pen","cents":5}"#;
    assert_eq!(shop.send(Method::POST, "/orders", &other, body).await.body, "run 2");
    assert_eq!(shop.runs(), 2);
    let conn = &mut C::connection(&database);
    assert_eq!(C::count(conn, "inbox_requests WHERE reply LIKE '%canary%'"), 0);
    assert_eq!(C::count(conn, "inbox_operations"), 0);
}

async fn the_layer_runs_one_of_many_at_once<C: Shopping>() {
    let database = C::database();
    let mut policy = policy();
    policy.wait = Duration::from_secs(60);
    let shop = shop::<C, _>(policy, &database, numbered).await;
    for answer in join_all((0..50).map(|_| shop.order("\"k\"", 5))).await {
        assert_eq!((answer.status, &*answer.body), (201, "run 1"), "{answer:?}");
    }
    assert_eq!(shop.runs(), 1);
}

async fn t08_in_the_layer_method_and_route_are_another_key_and_path_or_query_another_request<
    C: Shopping,
>() {
    let database = C::database();
    let shop = shop::<C, _>(policy(), &database, numbered).await;
    let body = r#"{"item":"pen","cents":5}"#;
    let key = [("idempotency-key", "\"k\""), JSON];
    assert_eq!(shop.post("/orders", "\"k\"", body).await.body, "run 1");
    assert_eq!(shop.post("/refunds", "\"k\"", body).await.body, "run 2");
    assert_eq!(shop.send(Method::PUT, "/orders", &key, body).await.body, "run 3");
    assert_eq!(shop.post("/orders/1/pay", "\"k\"", body).await.body, "run 4");
    shop.post("/orders/2/pay", "\"k\"", body).await.expect_problem(422, "mismatch");
    shop.post("/orders?express=1", "\"k\"", body).await.expect_problem(422, "mismatch");
    assert!(shop.post("/orders/1/pay", "\"k\"", body).await.is_replayed());
    assert_eq!(shop.runs(), 4);
}

async fn t14_in_the_layer_a_4xx_is_kept_by_default<C: Shopping>() {
    let database = C::database();
    let refuse = async |_| (StatusCode::UNPROCESSABLE_ENTITY, "no such item").into_response();
    let shop = shop::<C, _>(policy(), &database, refuse).await;
    for replayed in [false, true] {
        let answer = shop.order("\"k\"", 5).await;
        assert_eq!((answer.status, answer.is_replayed()), (422, replayed));
        assert_eq!(answer.body, "no such item");
    }
    // Corrected it is another request.
    shop.order("\"k\"", 6).await.expect_problem(422, "mismatch");
    assert_eq!(shop.runs(), 1);
}

/// The first run charges and gets no further; it is taken for dead, and another one begins.
async fn a_handler_that_runs_twice_finds_the_effect_of_its_request<C: Shopping>() {
    let (database, provider, gate) = (C::database(), Provider::default(), Gate::default());
    let ledger = effects::<C>(&database, "of no request");
    let mut policy = policy();
    // Not renewed between the end it is given here and the next request.
    policy.lease = Duration::from_secs(3_600);
    let front = Idempotency::new(policy, C::pool(&database)).expect("a good policy");
    let runs = Arc::new(AtomicUsize::new(0));
    let (bank, held, counted) = (provider.clone(), gate.clone(), runs.clone());
    let charge = async move |Extension(operation): Extension<OperationKey>| {
        let effects = ledger.of(&operation);
        let charged = effects.once(CHARGE, |key| bank.answers(key, Ok(7_u32))).await;
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            held.passed().await;
        }
        charged.map_or_else(|error| error.to_string(), |cents| format!("charged {cents}"))
    };
    let router = Router::new().route("/orders", post(charge)).layer(front.layer());
    let shop = Arc::new(Server::serve(router, runs).await);
    let first = shop.clone();
    let first = tokio::spawn(async move { first.order("\"k\"", 5).await });
    gate.entered().await;
    let past = if C::NAME == "postgres" { "'epoch'" } else { "1" };
    let dead = format!("UPDATE inbox_requests SET lease_until = {past}");
    assert_eq!(C::execute(&mut C::connection(&database), &dead), Ok(1));
    assert_eq!(shop.order("\"k\"", 5).await.body, "charged 7");
    assert_eq!((shop.runs(), provider.count()), (2, 1));
    // Another request is another operation.
    assert_eq!(shop.order("\"l\"", 5).await.body, "charged 7");
    assert_eq!(provider.count(), 2);
    gate.open();
    assert_eq!(first.await.expect("no panic").body, "charged 7");
}

async fn t30_a_stream_or_a_large_reply_passes_and_a_repeat_gets_409<C: Shopping>() {
    let database = C::database();
    let mut policy = policy();
    policy.max_reply = 100;
    let shop = shop::<C, _>(policy, &database, async |run| match run {
        1 => {
            let pieces = ["data: 1\n\n", "data: 2\n\n"].map(Ok::<_, std::convert::Infallible>);
            let body = Body::from_stream(futures_util::stream::iter(pieces));
            ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
        }
        _ => "x".repeat(101).into_response(),
    })
    .await;
    let stream = shop.order("\"a\"", 5).await;
    assert_eq!((stream.status, &*stream.body), (200, "data: 1\n\ndata: 2\n\n"));
    shop.order("\"a\"", 5).await.expect_problem(409, "reply-not-kept");
    assert_eq!(shop.order("\"b\"", 5).await.body.len(), 101);
    shop.order("\"b\"", 5).await.expect_problem(409, "reply-not-kept");
    assert_eq!(shop.runs(), 2);
}

async fn the_layer_frees_the_key_after_a_panic_or_a_5xx<C: Shopping>() {
    let database = C::database();
    let mut policy = policy();
    policy.client_errors = Keep::Free;
    let shop = shop::<C, _>(policy, &database, async |run| match run {
        1 => panic!("a fault of the handler"),
        2 => StatusCode::BAD_GATEWAY.into_response(),
        3 => StatusCode::CONFLICT.into_response(),
        _ => StatusCode::CREATED.into_response(),
    })
    .await;
    shop.order("\"k\"", 5).await.expect_problem(500, "interrupted");
    for status in [502, 409, 201] {
        let answer = shop.order("\"k\"", 5).await;
        assert_eq!((answer.status, answer.is_replayed()), (status, false));
    }
    assert!(shop.order("\"k\"", 5).await.is_replayed());
}

async fn t16_in_the_layer_a_5xx_and_a_panic_are_kept_where_the_policy_says_so<C: Shopping>() {
    let database = C::database();
    let mut stripe = policy();
    stripe.server_errors = Keep::Stored;
    let shop = shop::<C, _>(stripe, &database, async |run| match run {
        1 => (StatusCode::BAD_GATEWAY, "no answer from the bank").into_response(),
        _ => panic!("a fault of the handler"),
    })
    .await;
    for replayed in [false, true] {
        let answer = shop.order("\"returned\"", 5).await;
        assert_eq!((answer.status, answer.is_replayed()), (502, replayed));
        assert_eq!(answer.body, "no answer from the bank");
    }
    let broken = shop.order("\"panicked\"", 5).await;
    broken.expect_problem(500, "interrupted");
    let again = shop.order("\"panicked\"", 5).await;
    assert_eq!((again.status, again.is_replayed(), again.body), (500, true, broken.body));
    assert_eq!(shop.runs(), 2);
}

async fn the_layer_finishes_a_run_whose_client_has_gone<C: Shopping>() {
    let database = C::database();
    let recorded = Recorded::install();
    let gate = Gate::default();
    let held = gate.clone();
    let policy = policy();
    let counted = |ending| format!("{REQUESTS} policy={},ending={ending}", policy.name);
    let (gone, first) = (counted("gone"), counted("first"));
    let shop = shop::<C, _>(policy, &database, move |run| {
        let held = held.clone();
        async move {
            held.passed().await;
            numbered(run).await
        }
    })
    .await;
    let client = shop.order_unread().await;
    gate.entered().await;
    drop(client);
    eventually("it is counted", async || recorded.counter(&gone) == Some(1)).await;
    gate.open();
    let conn = &mut C::connection(&database);
    let completed = "inbox_requests WHERE state = 'completed'";
    eventually("the run is completed", async || C::count(conn, completed) == 1).await;
    let again = shop.order("\"k\"", 5).await;
    assert_eq!((&*again.body, again.is_replayed()), ("run 1", true));
    // Once, and for nothing else.
    assert_eq!((recorded.counter(&gone), recorded.counter(&first)), (Some(1), Some(0)));
}

async fn the_layer_stores_nothing_of_safe_methods_or_without_a_key<C: Shopping>() {
    let database = C::database();
    let shop = shop::<C, _>(policy(), &database, numbered).await;
    let key = [("idempotency-key", "\"k\"")];
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        assert_eq!(shop.send(method, "/orders", &key, "").await.status, 201);
    }
    assert_eq!(shop.send(Method::PUT, "/orders", &[], "any").await.status, 201);
    shop.send(Method::POST, "/orders", &[], "any").await.expect_problem(400, "missing-key");
    assert_eq!(C::count(&mut C::connection(&database), "inbox_requests"), 0);
}
