//! Databases that cannot be used at all: what the client gets, and what whoever runs the service is told.

use inbox::http::Idempotency;
use inbox::http::telemetry::REQUESTS;
use migrations::SchemaError;
use support::http::{JSON, Server, Shopping, place, policy};
use support::logged::Log;
use support::recorded::Recorded;

super::on_both!(
    without_tables_nothing_is_done_and_the_log_names_the_remedy,
    what_is_wrong_with_a_body_is_told_its_sender,
);

async fn without_tables_nothing_is_done_and_the_log_names_the_remedy<C: Shopping>() {
    let (log, recorded, database) = (Log::install(), Recorded::install(), C::database());
    let front = Idempotency::new(policy(), C::pool(&database)).expect("a good policy");
    front.check().await.expect("current");
    let conn = &mut C::connection(&database);
    migrations::revert_all(conn).expect("reverts");
    let missing = front.check().await.expect_err("no tables");
    assert!(matches!(missing, db::CallError::Work(SchemaError::Missing)), "{missing}");

    let (transaction, layer) = (policy(), front.policy().name.clone());
    let name = transaction.name.clone();
    let unavailable = format!("{REQUESTS} policy={},ending=unavailable", transaction.name);
    let shop = Server::start(transaction, C::pool(&database), place::<C>).await;
    shop.order("\"k\"", 5).await.expect_problem(503, "unavailable");
    assert_eq!(recorded.counter(&unavailable), Some(1));
    assert_eq!(C::credits(conn, "pen"), Vec::<i64>::new());
    let layered = Server::layered(&front, async |_| unreachable!("no key was claimed")).await;
    layered.order("\"k\"", 5).await.expect_problem(503, "unavailable");
    let text = log.text();
    for (line, policy) in [("no request can be handled", name), ("no key can be claimed", layer)] {
        let told = text.lines().any(|told| {
            ["ERROR", line, &policy, "relay migrate"].iter().all(|part| told.contains(part))
        });
        assert!(told, "{line}:\n{text}");
    }
}

async fn what_is_wrong_with_a_body_is_told_its_sender<C: Shopping>() {
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), place::<C>).await;
    for (body, fault) in [
        (r#"{"item":"pen"}"#, "missing field `cents` at line 1 column 14"),
        (r#"{"item":"pen","cents":"five"}"#, "expected i64"),
        (r#"{"item":"#, "EOF"),
    ] {
        let answer = shop.post("/orders", "\"k\"", body).await;
        answer.expect_problem(400, "bad-body");
        assert!(answer.body.contains(fault), "{answer:?}");
    }
    assert_eq!(shop.runs(), 0);
    let key = ("idempotency-key", "\"k\"");
    let pen = r#"{"item":"pen","cents":5}"#;
    let good = shop.send(axum::http::Method::POST, "/orders", &[key, JSON], pen).await;
    assert_eq!((good.status, good.is_replayed()), (201, false));
}
