//! What is a key.

use axum::http::Method;
use inbox::http::telemetry::REQUESTS;
use support::http::{JSON, Server, Shopping, place, policy};
use support::recorded::Recorded;

super::on_both!(
    t03_a_missing_key_is_400_where_it_is_required_and_nothing_is_stored_where_not,
    t04_a_value_that_is_no_quoted_string_is_400_and_never_500,
    t05_an_empty_long_foreign_or_repeated_key_is_400,
    t06_escapes_make_the_same_key_as_what_they_stand_for,
);

const PEN: &str = r#"{"item":"pen","cents":5}"#;

async fn t03_a_missing_key_is_400_where_it_is_required_and_nothing_is_stored_where_not<
    C: Shopping,
>() {
    let database = C::database();
    let recorded = Recorded::install();
    let policy = policy();
    let series = format!("{REQUESTS} policy={},ending=missing_key", policy.name);
    let shop = Server::start(policy.clone(), C::pool(&database), place::<C>).await;
    shop.send(Method::POST, "/orders", &[JSON], PEN).await.expect_problem(400, "missing-key");
    assert_eq!(shop.runs(), 0);
    assert_eq!(recorded.counter(&series), Some(1));

    let mut optional = policy;
    optional.required = false;
    let shop = Server::start(optional, C::pool(&database), place::<C>).await;
    for _ in 0..2 {
        let answer = shop.send(Method::POST, "/orders", &[JSON], PEN).await;
        assert_eq!((answer.status, answer.is_replayed()), (201, false));
    }
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "pen"), [5, 5]);
    assert_eq!(C::count(conn, "inbox_operations"), 0);
}

async fn t04_a_value_that_is_no_quoted_string_is_400_and_never_500<C: Shopping>() {
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), place::<C>).await;
    let values = ["token", "12", "1.5", "?1", ":aGk=:", "(\"a\")", ";a=1", "\"open", "@12", "*"];
    for value in values {
        shop.order(value, 5).await.expect_problem(400, "bad-key");
    }
    assert_eq!(shop.runs(), 0);
    let mut lenient = policy();
    lenient.lenient_keys = true;
    let shop = Server::start(lenient, C::pool(&database), place::<C>).await;
    let uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324";
    assert_eq!(shop.order(uuid, 5).await.status, 201);
    assert!(shop.order(uuid, 5).await.is_replayed());
    // One key in two forms is one key.
    assert!(shop.order(&format!("\"{uuid}\""), 5).await.is_replayed());
    shop.order("a,b", 5).await.expect_problem(400, "bad-key");
    // A key as people write it: with quotes to everybody, without to the lenient.
    assert_eq!(shop.order("order_456_payment_attempt_1", 5).await.status, 201);
    assert!(shop.order("\"order_456_payment_attempt_1\"", 5).await.is_replayed());
}

async fn t05_an_empty_long_foreign_or_repeated_key_is_400<C: Shopping>() {
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), place::<C>).await;
    let long = format!("\"{}\"", "k".repeat(256));
    for value in ["\"\"", "", &long, "\"a\tb\"", "\"ä\"", "\"a\", \"b\""] {
        shop.order(value, 5).await.expect_problem(400, "bad-key");
    }
    let twice = [("idempotency-key", "\"a\""), ("idempotency-key", "\"a\""), JSON];
    shop.send(Method::POST, "/orders", &twice, PEN).await.expect_problem(400, "bad-key");
    assert_eq!(shop.runs(), 0);
    let longest = format!("\"{}\"", "k".repeat(255));
    assert_eq!(shop.order(&longest, 5).await.status, 201);
    assert_eq!(C::count(&mut C::connection(&database), "inbox_operations"), 1);
}

async fn t06_escapes_make_the_same_key_as_what_they_stand_for<C: Shopping>() {
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), place::<C>).await;
    let first = shop.order(r#""a\"b\\c";p=1"#, 5).await;
    assert_eq!(first.status, 201);
    let again = shop.order(r#"  "a\"b\\c"  "#, 5).await;
    assert!(again.is_replayed());
    assert_eq!(again.body, first.body);
    // What is written alike after decoding is another key.
    assert!(!shop.order(r#""a\\\"b\\\\c""#, 5).await.is_replayed());
    assert_eq!(shop.runs(), 2);
}
