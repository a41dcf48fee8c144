//! What must not be seen: other people's replies, and keys in clear.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use inbox::http::telemetry::REQUESTS;
use inbox::http::{Failed, Idempotency, Reply, Seal};
use support::http::{JSON, Order, Server, Shopping, place, policy};
use support::logged::Log;
use support::recorded::Recorded;

super::on_both!(
    t28_whoever_is_turned_away_before_the_key_is_looked_at_gets_no_stored_reply,
    t34_a_key_is_nowhere_in_clear_and_its_characters_do_nothing,
    t34_in_the_layer_a_key_is_nowhere_in_clear_and_its_characters_do_nothing,
    a_sealed_reply_is_unreadable_in_the_database_and_whole_for_the_client,
    a_sealed_reply_opens_in_its_own_row_only,
);

const PEN: &str = r#"{"item":"pen","cents":5}"#;

async fn t28_whoever_is_turned_away_before_the_key_is_looked_at_gets_no_stored_reply<
    C: Shopping,
>() {
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), place::<C>).await;
    for (user, status) in [("revoked", 401), ("forbidden", 403), ("limited", 429)] {
        let headers = [("idempotency-key", "\"k\""), JSON, ("x-user", user)];
        let answer = shop.send(Method::POST, "/orders", &headers, PEN).await;
        assert_eq!((answer.status, answer.is_replayed()), (status, false));
    }
    let conn = &mut C::connection(&database);
    assert_eq!(C::count(conn, "inbox_operations"), 0);
    let first = shop.order("\"k\"", 5).await;
    assert_eq!((first.status, first.is_replayed()), (201, false), "nothing was kept of them");
    let front = Idempotency::new(policy(), C::pool(&database)).expect("a good policy");
    let layered = Server::layered(&front, async |run| {
        axum::response::IntoResponse::into_response(format!("run {run}"))
    });
    let layered = layered.await;
    layered.order("\"k\"", 5).await;
    for shop in [&shop, &layered] {
        // Whoever stored it, after the right was withdrawn.
        for status in ["401", "403", "429"] {
            let headers = [("idempotency-key", "\"k\""), JSON, ("x-turned-away", status)];
            let answer = shop.send(Method::POST, "/orders", &headers, PEN).await;
            assert_eq!((answer.status.to_string().as_str(), &*answer.body), (status, ""));
            assert!(!answer.is_replayed() && answer.header("location").is_empty());
        }
        assert!(shop.order("\"k\"", 5).await.is_replayed(), "and given again");
        assert_eq!(shop.runs(), 1);
    }
}

/// A key that can be found wherever it is.
const CANARY: &str = "\"canary-4711'; DROP TABLE inbox_operations; -- %s $1 ?\"";

/// Checks that nobody has shown the key. The client's own request is logged by nobody here, the test's client
/// included.
#[track_caller]
fn is_shown_nowhere(log: &Log, answers: &str, recorded: &Recorded) {
    let (log, metrics) = (log.text(), recorded.series("counterfoil_").join("\n"));
    for (place, text) in [("log", &*log), ("answers", answers), ("metrics", &metrics)] {
        let found: Vec<&str> = text.lines().filter(|line| line.contains("canary-4711")).collect();
        assert!(found.is_empty(), "{place}: {found:?}");
    }
}

async fn t34_in_the_layer_a_key_is_nowhere_in_clear_and_its_characters_do_nothing<C: Shopping>() {
    let (log, recorded) = (Log::install(), Recorded::install());
    let database = C::database();
    let front = Idempotency::new(policy(), C::pool(&database)).expect("a good policy");
    let shop = Server::layered(&front, async |run| match run {
        1 => panic!("a fault of the handler in the layer"),
        _ => axum::response::IntoResponse::into_response(format!("run {run}")),
    })
    .await;
    let mut shown = String::new();
    for (cents, status) in [(5, 500), (5, 200), (5, 200), (6, 422)] {
        let answer = shop.order(CANARY, cents).await;
        assert_eq!(answer.status, status);
        shown += &format!("{answer:?}");
    }
    let conn = &mut C::connection(&database);
    let everything = if C::NAME == "postgres" {
        "inbox_requests AS r WHERE r::text LIKE '%canary-4711%'"
    } else {
        "inbox_requests WHERE concat(consumer, scope, operation, owner, reply) LIKE '%canary-4711%'"
    };
    assert_eq!((C::count(conn, "inbox_requests"), C::count(conn, everything)), (1, 0));
    assert!(log.text().contains("the handler panicked"), "{}", log.text());
    is_shown_nowhere(&log, &shown, &recorded);
}

async fn t34_a_key_is_nowhere_in_clear_and_its_characters_do_nothing<C: Shopping>() {
    let (log, recorded) = (Log::install(), Recorded::install());
    let database = C::database();
    let shop = Server::start(policy(), C::pool(&database), |tx: &mut C, order: &Order| {
        if order.item == "trouble" {
            C::execute(tx, "SELECT * FROM nowhere")?;
        }
        place(tx, order)
    })
    .await;
    let trouble = r#"{"item":"trouble","cents":5}"#;
    let mut shown = format!("{:?}", shop.post("/orders", CANARY, trouble).await);
    for (cents, status) in [(5, 201), (5, 201), (6, 422)] {
        let answer = shop.order(CANARY, cents).await;
        assert_eq!(answer.status, status);
        shown += &format!("{answer:?}");
    }
    let conn = &mut C::connection(&database);
    let everything = if C::NAME == "postgres" {
        "inbox_operations AS o WHERE o::text LIKE '%canary-4711%'"
    } else {
        "inbox_operations WHERE concat(consumer, scope, operation, result, message_id) LIKE '%canary-4711%'"
    };
    assert_eq!(C::count(conn, "inbox_operations"), 1);
    assert_eq!(C::count(conn, everything), 0);
    assert!(log.text().contains("the request failed"), "{}", log.text());
    is_shown_nowhere(&log, &shown, &recorded);
}

#[derive(Debug)]
struct Backwards;

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Seal for Backwards {
    fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, Cause> {
        Ok(context.bytes().chain(plain.iter().rev().copied()).collect())
    }

    fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, Cause> {
        let text = sealed.strip_prefix(context.as_bytes()).ok_or("of another row")?;
        Ok(text.iter().rev().copied().collect())
    }
}

async fn a_sealed_reply_is_unreadable_in_the_database_and_whole_for_the_client<C: Shopping>() {
    let database = C::database();
    let mut sealing = policy();
    sealing.seal = Some(Arc::new(Backwards));
    let mut without = sealing.clone();
    without.seal = None;
    let handler = |tx: &mut C, order: &Order| -> Result<Reply, Failed> {
        place(tx, order)?;
        Ok(Reply::new(StatusCode::OK).with_body("card 4242"))
    };
    let shop = Server::start(sealing, C::pool(&database), handler).await;
    assert_eq!(shop.order("\"k\"", 5).await.body, "card 4242");
    let again = shop.order("\"k\"", 5).await;
    assert_eq!((again.is_replayed(), &*again.body), (true, "card 4242"));
    let conn = &mut C::connection(&database);
    assert_eq!(C::count(conn, "inbox_operations WHERE result LIKE '{\"sealed\":%'"), 1);
    assert_eq!(C::count(conn, "inbox_operations WHERE result LIKE '%4242%'"), 0);
    // A node that has lost the means to read it runs nothing in its place.
    let shop = Server::start(without, C::pool(&database), handler).await;
    shop.order("\"k\"", 5).await.expect_problem(409, "reply-not-kept");
    assert_eq!(shop.runs(), 0);
}

/// What one client may read was put under the key of another.
async fn a_sealed_reply_opens_in_its_own_row_only<C: Shopping>() {
    for layered in [false, true] {
        let (database, recorded) = (C::database(), Recorded::install());
        let mut policy = policy();
        policy.seal = Some(Arc::new(Backwards));
        let unreadable = format!("{REQUESTS} policy={},ending=unreadable", policy.name);
        let (shop, moved) = if layered {
            let front = Idempotency::new(policy, C::pool(&database)).expect("a good policy");
            let shop = Server::layered(&front, async |run| {
                axum::response::IntoResponse::into_response(format!("run {run}"))
            });
            (
                shop.await,
                "UPDATE inbox_requests SET reply = (SELECT min(reply) FROM inbox_requests)",
            )
        } else {
            let shop = Server::start(policy, C::pool(&database), place::<C>).await;
            (
                shop,
                "UPDATE inbox_operations SET result = (SELECT min(result) FROM inbox_operations)",
            )
        };
        let mut firsts = Vec::new();
        for key in ["\"a\"", "\"b\""] {
            firsts.push(shop.order(key, 5).await);
            assert_eq!(shop.order(key, 5).await.body, firsts[firsts.len() - 1].body);
        }
        assert_eq!(C::execute(&mut C::connection(&database), moved), Ok(2));
        let mut opened = 0;
        for (key, first) in ["\"a\"", "\"b\""].iter().zip(&firsts) {
            let again = shop.order(key, 5).await;
            if again.is_replayed() {
                assert_eq!(again.body, first.body);
                opened += 1;
            } else {
                again.expect_problem(409, "reply-not-kept");
            }
        }
        assert_eq!((opened, shop.runs(), recorded.counter(&unreadable)), (1, 2, Some(1)));
    }
}
