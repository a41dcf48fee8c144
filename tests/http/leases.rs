//! Runs outside a transaction, held by a lease.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use inbox::http::telemetry::{REQUESTS, TAKEOVERS};
use inbox::http::{Idempotency, Policy};
use support::eventually;
use support::gate::Gate;
use support::http::{Server, Shopping, policy};
use support::recorded::Recorded;

super::on_both!(
    t22_a_run_whose_lease_has_ended_is_taken_over_and_its_owner_overwrites_nothing,
    t23_a_run_longer_than_its_lease_is_left_alone,
    t22_an_owner_that_finds_its_lease_taken_stops,
);

/// The first run waits at the gate; each answers with its number.
async fn gated<C: Shopping>(
    policy: Policy,
    database: &support::database::Database,
) -> (Arc<Server>, Gate) {
    let front = Idempotency::new(policy, C::pool(database)).expect("a good policy");
    let gate = Gate::default();
    let held = gate.clone();
    let shop = Server::layered(&front, move |run| {
        let held = held.clone();
        async move {
            if run == 1 {
                held.passed().await;
            }
            answered(run)
        }
    });
    (Arc::new(shop.await), gate)
}

fn answered(run: usize) -> Response {
    (StatusCode::CREATED, format!("run {run}")).into_response()
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
    let policy = policy();
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

async fn t22_an_owner_that_finds_its_lease_taken_stops<C: Shopping>() {
    let database = C::database();
    let mut policy = policy();
    policy.lease = Duration::from_millis(300);
    policy.wait = Duration::from_secs(60);
    let (shop, gate) = gated::<C>(policy, &database).await;
    let first = post(&shop);
    gate.entered().await;
    let conn = &mut C::connection(&database);
    // As if somebody else had taken over and was at work.
    let far = if C::NAME == "postgres" { "now() + interval '1 hour'" } else { "9e15" };
    let taken =
        format!("UPDATE inbox_requests SET owner = 'x', epoch = 2, lease_until = CAST({far} AS ");
    let kind = if C::NAME == "postgres" { "timestamptz)" } else { "INTEGER)" };
    assert_eq!(C::execute(conn, &format!("{taken}{kind}")), Ok(1));
    let done = if C::NAME == "postgres" { "now()" } else { "unixepoch() * 1000000" };
    let complete = format!(
        "UPDATE inbox_requests SET state = 'completed', lease_until = NULL, completed_at = {done},
             reply = '{{\"reply\":{{\"status\":201,\"headers\":[],\"body\":{{\"text\":\"the other one\"}}}}}}'"
    );
    assert_eq!(C::execute(conn, &complete), Ok(1));
    // The gate stays closed: it is the renewal that finds out, and the handler that is dropped.
    let first = first.await.expect("no panic");
    assert_eq!((first.is_replayed(), &*first.body), (true, "the other one"));
    gate.open();
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
