//! What a first request and its repeats get.

use axum::http::header::{CONTENT_LANGUAGE, CONTENT_LOCATION, DATE, ETAG, SET_COOKIE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use inbox::http::{Policy, Reply};
use support::http::{JSON, Order, Server, Shopping, place, policy};

super::on_both!(
    t01_a_first_post_runs_its_handler_once_and_is_complete_in_the_same_commit,
    t02_a_repeat_gets_status_body_and_headers_of_the_first_and_a_mark,
    t27_any_number_of_repeats_leaves_one_event,
    t29_cookies_dates_and_what_is_not_listed_are_not_kept,
    t30_a_reply_over_the_limit_is_given_once_and_never_cut,
    t32_safe_methods_store_nothing_and_put_and_delete_are_kept_where_they_name_a_key,
);

async fn t01_a_first_post_runs_its_handler_once_and_is_complete_in_the_same_commit<C: Shopping>() {
    let database = C::database();
    let policy = policy();
    let consumer = policy.consumer();
    let shop = Server::start(policy, C::pool(&database), place::<C>).await;
    let first = shop.order("\"k\"", 5).await;
    assert_eq!((first.status, first.is_replayed()), (201, false));
    assert_eq!(shop.runs(), 1);
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "pen"), [5]);
    assert_eq!(C::count(conn, "outbox_messages"), 1);
    let stored =
        format!("inbox_operations WHERE consumer = '{consumer}' AND result LIKE '%{}%'", "number");
    assert_eq!(C::count(conn, &stored), 1);
    if C::NAME == "postgres" {
        let written = ["ledger", "outbox_messages", "inbox_operations"]
            .map(|table| format!("SELECT xmin::text AS writer FROM {table}"))
            .join(" UNION ALL ");
        let writers = format!("(SELECT DISTINCT writer FROM ({written}) AS w) AS d");
        assert_eq!(C::count(conn, &writers), 1, "one transaction has written all");
    }
}

async fn t02_a_repeat_gets_status_body_and_headers_of_the_first_and_a_mark<C: Shopping>() {
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), |tx: &mut C, order: &Order| {
        Ok(place(tx, order)?
            .with_header(CONTENT_LANGUAGE, HeaderValue::from_static("de"))
            .with_header(CONTENT_LOCATION, HeaderValue::from_static("/orders/last"))
            .with_header(ETAG, HeaderValue::from_static("\"1\"")))
    })
    .await;
    let first = shop.order("\"k\"", 5).await;
    assert_eq!(first.status, 201);
    let named = [
        ("content-type", "application/json"),
        ("content-language", "de"),
        ("content-location", "/orders/last"),
        ("etag", "\"1\""),
    ];
    for _ in 0..3 {
        let again = shop.order("\"k\"", 5).await;
        assert!(again.is_replayed(), "{again:?}");
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        for (name, value) in named {
            assert_eq!((first.header(name), again.header(name)), (value, value), "{name}");
        }
        assert!(first.header("location").starts_with("/orders/"));
        for name in ["location", "content-length"] {
            assert_eq!(again.header(name), first.header(name), "{name}");
        }
    }
    assert_eq!(shop.runs(), 1);
    assert_eq!(C::credits(&mut C::connection(&database), "pen"), [5]);
}

async fn t27_any_number_of_repeats_leaves_one_event<C: Shopping>() {
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), place::<C>).await;
    for key in ["\"a\"", "\"b\""] {
        for _ in 0..5 {
            assert_eq!(shop.order(key, 5).await.status, 201);
        }
    }
    let conn = &mut C::connection(&database);
    assert_eq!(C::count(conn, "outbox_messages"), 2);
    assert_eq!(C::credits(conn, "pen"), [5, 5]);
}

async fn t29_cookies_dates_and_what_is_not_listed_are_not_kept<C: Shopping>() {
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), |tx: &mut C, order: &Order| {
        let value = HeaderValue::from_static;
        let trace = HeaderName::from_static("x-request-id");
        Ok(place(tx, order)?
            .with_header(SET_COOKIE, value("session=canary"))
            .with_header(trace, value("canary"))
            .with_header(DATE, value("Thu, 01 Jan 1970 00:00:00 GMT"))
            .with_header(ETAG, value("\"1\"")))
    })
    .await;
    let first = shop.order("\"k\"", 5).await;
    assert_eq!(first.header("set-cookie"), "session=canary");
    assert_eq!(first.header("etag"), "\"1\"");
    let again = shop.order("\"k\"", 5).await;
    assert!(again.is_replayed());
    assert_eq!(again.header("etag"), "\"1\"");
    for name in ["set-cookie", "x-request-id"] {
        assert_eq!(again.header(name), "", "{name}");
    }
    assert_ne!(again.header("date"), "Thu, 01 Jan 1970 00:00:00 GMT");
    let kept = C::count(
        &mut C::connection(&database),
        "inbox_operations WHERE result LIKE '%canary%' OR result LIKE '%1970%'",
    );
    assert_eq!(kept, 0);
}

async fn t30_a_reply_over_the_limit_is_given_once_and_never_cut<C: Shopping>() {
    let database = C::database();
    let mut policy: Policy = policy();
    policy.max_reply = 100;
    let shop = Server::start(policy, C::pool(&database), |tx: &mut C, order: &Order| {
        place(tx, order)?;
        Ok(Reply::new(StatusCode::OK).with_body("x".repeat(101)))
    })
    .await;
    assert_eq!(shop.order("\"k\"", 5).await.body.len(), 101);
    shop.order("\"k\"", 5).await.expect_problem(409, "reply-not-kept");
    shop.order("\"k\"", 6).await.expect_problem(422, "mismatch");
    assert_eq!(shop.runs(), 1);
    assert_eq!(C::credits(&mut C::connection(&database), "pen"), [5]);
}

async fn t32_safe_methods_store_nothing_and_put_and_delete_are_kept_where_they_name_a_key<
    C: Shopping,
>() {
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), place::<C>).await;
    let key = ("idempotency-key", "\"k\"");
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        for _ in 0..2 {
            let answer = shop.send(method.clone(), "/orders", &[key], "").await;
            assert_eq!((answer.status, answer.is_replayed()), (201, false), "{method}");
        }
    }
    let conn = &mut C::connection(&database);
    assert_eq!(C::count(conn, "inbox_operations"), 0);
    let pen = r#"{"item":"pen","cents":5}"#;
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        for replayed in [false, true] {
            let answer = shop.send(method.clone(), "/orders", &[key, JSON], pen).await;
            assert_eq!((answer.status, answer.is_replayed()), (201, replayed), "{method}");
        }
    }
    assert_eq!(C::count(conn, "inbox_operations"), 3);
    for method in [Method::PUT, Method::DELETE] {
        let answer = shop.send(method, "/orders", &[JSON], pen).await;
        assert_eq!((answer.status, answer.is_replayed()), (201, false));
    }
    assert_eq!(C::count(conn, "inbox_operations"), 3);
    shop.send(Method::PATCH, "/orders", &[JSON], pen).await.expect_problem(400, "missing-key");
}
