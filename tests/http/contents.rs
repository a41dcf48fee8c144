//! What makes two requests of one key the same.

use axum::http::Method;
use inbox::http::Compare;
use inbox::http::telemetry::REQUESTS;
use support::http::{JSON, Server, Shopping, place, policy};
use support::recorded::Recorded;

super::on_both!(
    t07_another_body_is_422_and_shows_nothing_of_the_first_reply,
    t08_other_methods_and_routes_are_independent_and_another_path_or_query_is_422,
    t09_the_form_of_json_does_not_count_unless_the_policy_compares_bytes,
    t10_the_same_key_of_another_tenant_or_principal_is_another_key,
    without_a_caller_nothing_is_shared_and_the_application_is_told,
);

const PEN: &str = r#"{"item":"pen","cents":5}"#;

async fn t07_another_body_is_422_and_shows_nothing_of_the_first_reply<C: Shopping>() {
    let database = C::database();
    let recorded = Recorded::install();
    let policy = policy();
    let series = format!("{REQUESTS} policy={},ending=mismatch", policy.name);
    let shop = Server::start(policy, C::pool(&database), place::<C>).await;
    let first = shop.order("\"k\"", 5).await;
    let number = first.header("location").trim_start_matches("/orders/").to_owned();
    let other = shop.order("\"k\"", 6).await;
    other.expect_problem(422, "mismatch");
    assert!(!format!("{other:?}").contains(&number), "{other:?}");
    assert_eq!(shop.runs(), 1);
    assert_eq!(recorded.counter(&series), Some(1));
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "pen"), [5]);
    assert_eq!(C::count(conn, "inbox_operations WHERE conflicts = 1"), 1);
    assert!(shop.order("\"k\"", 5).await.is_replayed(), "the first one's key is as it was");
}

async fn t08_other_methods_and_routes_are_independent_and_another_path_or_query_is_422<
    C: Shopping,
>() {
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), place::<C>).await;
    assert_eq!(shop.post("/orders?a=1", "\"k\"", PEN).await.status, 201);
    assert!(!shop.post("/refunds", "\"k\"", PEN).await.is_replayed());
    let put =
        shop.send(Method::PUT, "/orders?a=1", &[("idempotency-key", "\"k\""), JSON], PEN).await;
    assert_eq!((put.status, put.is_replayed()), (201, false));
    assert_eq!(shop.runs(), 3);
    shop.post("/orders?a=2", "\"k\"", PEN).await.expect_problem(422, "mismatch");
    shop.post("/orders", "\"k\"", PEN).await.expect_problem(422, "mismatch");
    assert!(shop.post("/orders?a=1", "\"k\"", PEN).await.is_replayed());
    assert_eq!(shop.post("/orders/1/pay", "\"k\"", PEN).await.status, 201);
    // What a router is nested under belongs to the path.
    assert_eq!(shop.post("/accounts/1/withdraw", "\"k\"", PEN).await.status, 201);
    shop.post("/accounts/2/withdraw", "\"k\"", PEN).await.expect_problem(422, "mismatch");
    shop.post("/orders/2/pay", "\"k\"", PEN).await.expect_problem(422, "mismatch");
    assert_eq!(shop.runs(), 5);
}

async fn t09_the_form_of_json_does_not_count_unless_the_policy_compares_bytes<C: Shopping>() {
    let database = C::database();
    let (canonical, mut bytes) = (policy(), policy());
    bytes.compare = Compare::Bytes;
    let other = r#"{ "cents": 5, "item": "pen" }"#;
    let shop = Server::start(canonical, C::pool(&database), place::<C>).await;
    assert_eq!(shop.post("/orders", "\"k\"", PEN).await.status, 201);
    assert!(shop.post("/orders", "\"k\"", other).await.is_replayed());
    let shop = Server::start(bytes, C::pool(&database), place::<C>).await;
    assert_eq!(shop.post("/orders", "\"k\"", PEN).await.status, 201);
    shop.post("/orders", "\"k\"", other).await.expect_problem(422, "mismatch");
    assert!(shop.post("/orders", "\"k\"", PEN).await.is_replayed());
}

async fn t10_the_same_key_of_another_tenant_or_principal_is_another_key<C: Shopping>() {
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), place::<C>).await;
    let mut bodies = Vec::new();
    // The last two would be one if their parts were only put together.
    for (tenant, user) in [("t", "u"), ("t", "v"), ("s", "u"), ("tu", "v"), ("t", "uv")] {
        let headers = [("idempotency-key", "\"k\""), JSON, ("x-tenant", tenant), ("x-user", user)];
        let first = shop.send(Method::POST, "/orders", &headers, PEN).await;
        assert_eq!((first.status, first.is_replayed()), (201, false), "{tenant} {user}");
        let again = shop.send(Method::POST, "/orders", &headers, PEN).await;
        assert_eq!((again.is_replayed(), &again.body), (true, &first.body), "{tenant} {user}");
        bodies.push(first.body);
    }
    // With a body that would be a mismatch, had the key been known.
    let headers = [("idempotency-key", "\"k\""), JSON, ("x-user", "new")];
    let other = r#"{"item":"pen","cents":6}"#;
    assert_eq!(shop.send(Method::POST, "/orders", &headers, other).await.status, 201);
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 5);
}

async fn without_a_caller_nothing_is_shared_and_the_application_is_told<C: Shopping>() {
    let (database, recorded, strict) = (C::database(), Recorded::install(), policy());
    let misconfigured = format!("{REQUESTS} policy={},ending=misconfigured", strict.name);
    let shop = Server::start(strict, C::pool(&database), place::<C>).await;
    let nobody = [("idempotency-key", "\"k\""), JSON, ("x-user", "nobody")];
    shop.send(Method::POST, "/orders", &nobody, PEN).await.expect_problem(500, "misconfigured");
    assert_eq!((shop.runs(), recorded.counter(&misconfigured)), (0, Some(1)));
    assert_eq!(C::count(&mut C::connection(&database), "inbox_operations"), 0);
    let mut shared = policy();
    shared.shared_scope = true;
    let shop = Server::start(shared, C::pool(&database), place::<C>).await;
    assert_eq!(shop.send(Method::POST, "/orders", &nobody, PEN).await.status, 201);
    assert!(shop.send(Method::POST, "/orders", &nobody, PEN).await.is_replayed());
    // Who is named is nobody's neighbour.
    assert!(!shop.order("\"k\"", 5).await.is_replayed());
}
