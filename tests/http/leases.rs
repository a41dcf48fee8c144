//! Runs outside a transaction, held by a lease.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use inbox::http::telemetry::{REQUESTS, TAKEOVERS};
use inbox::http::{Idempotency, Policy};
use support::eventually;
use support::gate::Gate;
use support::http::{JSON, Server, Shopping, policy};
use support::recorded::Recorded;
use tokio::sync::Notify;

super::on_both!(
    t22_a_run_whose_lease_has_ended_is_taken_over_and_its_owner_overwrites_nothing,
    t23_a_run_longer_than_its_lease_is_left_alone,
    t10_what_is_in_progress_for_one_tenant_is_free_for_another,
    t22_an_owner_that_finds_its_lease_taken_stops,
    t22_an_owner_that_failed_frees_nobody_else_s_key,
    t22_who_was_overtaken_takes_nothing_back,
    t22_who_was_overtaken_by_nobody_that_is_left_answers_itself,
);

/// The first run waits at the gate; each answers with its number.
async fn gated<C: Shopping>(
    policy: Policy,
    database: &support::database::Database,
) -> (Arc<Server>, Gate) {
    let (shop, gate, _) = answering::<C>(StatusCode::CREATED, policy, database).await;
    (shop, gate)
}

/// The same with another status; the last says when the first run is no more.
async fn answering<C: Shopping>(
    status: StatusCode,
    policy: Policy,
    database: &support::database::Database,
) -> (Arc<Server>, Gate, Arc<Notify>) {
    let front = Idempotency::new(policy, C::pool(database)).expect("a good policy");
    let (gate, over) = (Gate::default(), Arc::new(Notify::new()));
    let (held, ends) = (gate.clone(), over.clone());
    let shop = Server::layered(&front, move |run| {
        let (held, ends) = (held.clone(), ends.clone());
        async move {
            if run == 1 {
                let _ends = Ends(ends);
                held.passed().await;
            }
            (status, format!("run {run}")).into_response()
        }
    });
    (Arc::new(shop.await), gate, over)
}

/// Tells when it is dropped.
struct Ends(Arc<Notify>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn post(shop: &Arc<Server>) -> tokio::task::JoinHandle<support::http::Answer> {
    let shop = shop.clone();
    tokio::spawn(async move { shop.order("\"k\"", 5).await })
}

const END: &str = "UPDATE inbox_requests SET lease_until = ";

/// Lets the lease end.
fn end_lease<C: Shopping>(conn: &mut C) {
    let past = if C::NAME == "postgres" {
        "now() - interval '1 second'"
    } else {
        "(unixepoch() - 2) * 1000000"
    };
    assert_eq!(C::execute(conn, &format!("{END}{past}")), Ok(1));
}

async fn t22_a_run_whose_lease_has_ended_is_taken_over_and_its_owner_overwrites_nothing<
    C: Shopping,
>() {
    let database = C::database();
    let recorded = Recorded::install();
    let mut policy = policy();
    // Not renewed between the end it is given here and the next request.
    policy.lease = Duration::from_secs(3_600);
    let takeovers = format!("{TAKEOVERS} policy={}", policy.name);
    let overtaken = format!("{REQUESTS} policy={},ending=overtaken", policy.name);
    let (shop, gate) = gated::<C>(policy, &database).await;
    let first = post(&shop);
    gate.entered().await;
    let conn = &mut C::connection(&database);
    shop.order("\"k\"", 5).await.expect_problem(409, "in-progress");
    shop.order("\"k\"", 6).await.expect_problem(422, "mismatch");
    end_lease(conn);
    shop.order("\"k\"", 6).await.expect_problem(422, "mismatch");
    let second = shop.order("\"k\"", 5).await;
    assert_eq!((second.is_replayed(), &*second.body), (false, "run 2"));
    assert_eq!(recorded.counter(&takeovers), Some(1));
    gate.open();
    // Its own reply is of no run that counts.
    let first = first.await.expect("no panic");
    assert_eq!((first.is_replayed(), &*first.body), (true, "run 2"));
    assert_eq!(recorded.counter(&overtaken), Some(1));
    let third = shop.order("\"k\"", 5).await;
    assert_eq!((third.is_replayed(), &*third.body), (true, "run 2"));
    assert_eq!(C::count(conn, "inbox_requests WHERE epoch = 2 AND state = 'completed'"), 1);
}

/// In a time that no test sees.
fn far<C: Shopping>() -> &'static str {
    if C::NAME == "postgres" {
        "CAST('2100-01-01T00:00:00Z' AS timestamptz)"
    } else {
        "4102444800000000"
    }
}

/// As if somebody else had taken over and was at work.
fn take_over<C: Shopping>(conn: &mut C) {
    let far = far::<C>();
    let taken = format!("UPDATE inbox_requests SET owner = 'x', epoch = 2, lease_until = {far}");
    assert_eq!(C::execute(conn, &taken), Ok(1));
}

/// Whether all is as [`take_over`] left it.
fn is_taken<C: Shopping>(conn: &mut C) -> bool {
    let far = far::<C>();
    let as_left = "owner = 'x' AND epoch = 2 AND state = 'in_progress'";
    C::count(conn, &format!("inbox_requests WHERE {as_left} AND lease_until = {far}")) == 1
}

async fn t22_an_owner_that_finds_its_lease_taken_stops<C: Shopping>() {
    let database = C::database();
    let mut policy = policy();
    policy.lease = Duration::from_millis(300);
    policy.wait = Duration::from_secs(60);
    let (shop, gate, over) = answering::<C>(StatusCode::CREATED, policy, &database).await;
    let first = post(&shop);
    gate.entered().await;
    let conn = &mut C::connection(&database);
    take_over(conn);
    // The gate stays closed: it is the renewal that finds out, and the handler that is dropped.
    over.notified().await;
    assert!(is_taken(conn), "the other one's lease is not the first one's to prolong");
    let done = if C::NAME == "postgres" { "now()" } else { "unixepoch() * 1000000" };
    let complete = format!(
        "UPDATE inbox_requests SET state = 'completed', lease_until = NULL, completed_at = {done},
             reply = '{{\"reply\":{{\"status\":201,\"headers\":[],\"body\":{{\"text\":\"the other one\"}}}}}}'"
    );
    assert_eq!(C::execute(conn, &complete), Ok(1));
    let first = first.await.expect("no panic");
    assert_eq!((first.is_replayed(), &*first.body), (true, "the other one"));
}

async fn t22_an_owner_that_failed_frees_nobody_else_s_key<C: Shopping>() {
    let (database, recorded, policy) = (C::database(), Recorded::install(), policy());
    let refused = format!("{REQUESTS} policy={},ending=refused", policy.name);
    let (shop, gate, _) = answering::<C>(StatusCode::BAD_GATEWAY, policy, &database).await;
    let first = post(&shop);
    gate.entered().await;
    let conn = &mut C::connection(&database);
    take_over(conn);
    gate.open();
    // Nothing of it is kept, so that it is this client's whoever has the key now.
    assert_eq!(first.await.expect("no panic").status, 502);
    assert_eq!(recorded.counter(&refused), Some(1));
    assert!(is_taken(conn));
}

async fn t22_who_was_overtaken_takes_nothing_back<C: Shopping>() {
    let database = C::database();
    let (shop, gate) = gated::<C>(policy(), &database).await;
    let first = post(&shop);
    gate.entered().await;
    let conn = &mut C::connection(&database);
    take_over(conn);
    // Late with its renewal, and alive.
    end_lease(conn);
    gate.open();
    first.await.expect("no panic").expect_problem(409, "in-progress");
    assert_eq!(C::count(conn, "inbox_requests WHERE owner = 'x' AND state = 'in_progress'"), 1);
}

async fn t22_who_was_overtaken_by_nobody_that_is_left_answers_itself<C: Shopping>() {
    let (database, recorded, policy) = (C::database(), Recorded::install(), policy());
    let overtaken = format!("{REQUESTS} policy={},ending=overtaken", policy.name);
    let (shop, gate) = gated::<C>(policy, &database).await;
    let first = post(&shop);
    gate.entered().await;
    let conn = &mut C::connection(&database);
    // Taken over, and freed again by a handler that failed.
    assert_eq!(C::execute(conn, "DELETE FROM inbox_requests"), Ok(1));
    gate.open();
    let first = first.await.expect("no panic");
    assert_eq!((first.status, &*first.body, first.is_replayed()), (201, "run 1", false));
    assert_eq!(recorded.counter(&overtaken), Some(1));
    assert_eq!(C::count(conn, "inbox_requests"), 0);
}

async fn t23_a_run_longer_than_its_lease_is_left_alone<C: Shopping>() {
    let database = C::database();
    let mut policy = policy();
    policy.lease = Duration::from_secs(3);
    let (shop, gate) = gated::<C>(policy, &database).await;
    let first = post(&shop);
    gate.entered().await;
    let conn = &mut C::connection(&database);
    let begun = if C::NAME == "postgres" {
        "inbox_requests WHERE lease_until > begun_at + interval '5 seconds'"
    } else {
        "inbox_requests WHERE lease_until > begun_at + 5000000"
    };
    eventually("the lease was renewed several times over", async || C::count(conn, begun) == 1)
        .await;
    shop.order("\"k\"", 5).await.expect_problem(409, "in-progress");
    gate.open();
    assert_eq!(first.await.expect("no panic").body, "run 1");
    assert!(shop.order("\"k\"", 5).await.is_replayed());
    assert_eq!(shop.runs(), 1);
    assert_eq!(C::count(conn, "inbox_requests WHERE epoch = 1"), 1);
}

async fn t10_what_is_in_progress_for_one_tenant_is_free_for_another<C: Shopping>() {
    let database = C::database();
    let (shop, gate) = gated::<C>(policy(), &database).await;
    let first = post(&shop);
    gate.entered().await;
    let other = [("idempotency-key", "\"k\""), JSON, ("x-tenant", "other")];
    let body = r#"{"item":"pen","cents":5}"#;
    let answer = shop.send(axum::http::Method::POST, "/orders", &other, body).await;
    assert_eq!((answer.status, &*answer.body), (201, "run 2"));
    shop.order("\"k\"", 5).await.expect_problem(409, "in-progress");
    gate.open();
    assert_eq!(first.await.expect("no panic").body, "run 1");
}
