//! Requests whose handlers reach the outside world, and what their clients get while nobody knows what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use diesel::PgConnection;
use futures_util::future::join_all;
use inbox::effect::admin::{Decision, Order as By, decide};
use inbox::effect::{EffectError, Policy as Declared, ProviderKey, Reconciler, Settings};
use inbox::http::telemetry::REQUESTS;
use inbox::http::{Failed, Idempotency, Idempotent, Reply, Unkept};
use message::OperationKey;
use support::effects::{CHARGE, Provider, die, effects, only, pass};
use support::gate::Gate;
use support::http::{Order, Server, Shopping, place, policy};
use support::inbox::{BILLING, Store};
use support::recorded::Recorded;

use crate::expiry::age;

super::on_both!(
    what_is_open_is_asked_for_again_under_the_same_key_until_it_is_known,
    what_a_person_decides_reaches_a_client_that_was_refused,
    what_holds_for_the_moment_is_not_kept_whatever_its_status,
    each_end_of_an_effect_has_an_answer_that_is_not_kept,
    effects_before_the_transaction_leave_a_repeat_alone,
    an_expired_key_is_as_new_to_who_looks_first,
    of_many_that_look_first_one_runs,
    a_failure_behind_an_effect_claims_nothing_and_is_not_kept,
    a_request_whose_handler_runs_no_transaction_is_counted,
);

const HOUR: Duration = Duration::from_secs(3600);

/// A shop in the layer that charges through the ledger.
async fn charging<C: Shopping>(
    database: &support::database::Database,
    provider: &Provider,
) -> Server {
    let front = Idempotency::new(policy(), C::pool(database)).expect("a good policy");
    let (ledger, bank) = (effects::<C>(database, "of no request"), provider.clone());
    let runs = Arc::new(AtomicUsize::new(0));
    let (answers, counted) = (front.clone(), runs.clone());
    let charge = async move |Extension(operation): Extension<OperationKey>| -> Response {
        counted.fetch_add(1, Ordering::SeqCst);
        let effects = ledger.of(&operation);
        match effects.once(CHARGE, |key| bank.answers(key, Ok(7_u32))).await {
            Ok(cents) => format!("charged {cents}").into_response(),
            Err(error) => answers.effect_failed(&error),
        }
    };
    let router = Router::new().route("/orders", post(charge)).layer(front.layer());
    Server::serve(router, runs).await
}

/// The operation that the layer gives a request like those of [`Server::order`].
async fn operation_of<C: Shopping>(database: &support::database::Database) -> OperationKey {
    let conn = &mut C::connection(database);
    let effect = only(conn);
    OperationKey::new(effect.scope, effect.operation).expect("valid")
}

async fn what_is_open_is_asked_for_again_under_the_same_key_until_it_is_known<C: Shopping>() {
    let (database, provider) = (C::database(), Provider::default());
    let shop = charging::<C>(&database, &provider).await;
    assert_eq!(shop.order("\"known\"", 5).await.body, "charged 7");
    // The next one's first process dies in the call, and the layer's lease is over before the effect's.
    let operation = operation_of::<C>(&database).await;
    let conn = &mut C::connection(&database);
    C::execute(conn, "DELETE FROM inbox_effects").expect("forgets it");
    C::execute(conn, "DELETE FROM inbox_requests").expect("forgets it");
    die(&effects::<C>(&database, "of no request").of(&operation), Declared::Review).await;

    let under_way = shop.order("\"known\"", 5).await;
    under_way.expect_problem(503, "unknown-outcome");
    assert!(under_way.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 1));
    pass(conn, HOUR);
    let reconciler = Reconciler::new(C::pool(&database), BILLING, Settings::default());
    reconciler.expect("settings that can work").round().await.expect("looks");
    let in_review = shop.order("\"known\"", 5).await;
    in_review.expect_problem(503, "in-review");
    assert_eq!(in_review.header("retry-after"), "60");
    let by = By::new("anna@desk", "found in the console");
    let id = only(conn).id;
    decide(conn, id, &Decision::Done(Some("9".to_owned())), &by).expect("decides");
    let known = shop.order("\"known\"", 5).await;
    assert_eq!((&*known.body, known.is_replayed()), ("charged 9", false));
    assert!(shop.order("\"known\"", 5).await.is_replayed());
    assert_eq!((provider.count(), shop.runs()), (1, 4));
}

async fn what_a_person_decides_reaches_a_client_that_was_refused<C: Shopping>() {
    let (database, provider) = (C::database(), Provider::default());
    let shop = charging::<C>(&database, &provider).await;
    assert_eq!(shop.order("\"k\"", 5).await.body, "charged 7");
    let conn = &mut C::connection(&database);
    C::execute(conn, "DELETE FROM inbox_requests").expect("forgets it");
    let refuse = "UPDATE inbox_effects SET state = 'failed', result = NULL, error = 'declined'";
    assert_eq!(C::execute(conn, refuse), Ok(1));
    for _ in 0..2 {
        shop.order("\"k\"", 5).await.expect_problem(422, "refused");
    }
    let by = By::new("anna@desk", "it was charged all the same");
    let id = only(conn).id;
    decide(conn, id, &Decision::Done(Some("9".to_owned())), &by).expect("decides");
    assert_eq!(shop.order("\"k\"", 5).await.body, "charged 9");
    assert_eq!(provider.count(), 1);
}

async fn what_holds_for_the_moment_is_not_kept_whatever_its_status<C: Shopping>() {
    let database = C::database();
    let front = Idempotency::new(policy(), C::pool(&database)).expect("a good policy");
    let shop = Server::layered(&front, async |run| match run {
        1 => (StatusCode::OK, Unkept, "queued").into_response(),
        2 => (StatusCode::CONFLICT, Unkept, "we open at nine").into_response(),
        _ => format!("run {run}").into_response(),
    })
    .await;
    for (status, body) in [(200, "queued"), (409, "we open at nine"), (200, "run 3")] {
        let answer = shop.order("\"k\"", 5).await;
        assert_eq!((answer.status, &*answer.body, answer.is_replayed()), (status, body, false));
    }
    assert_eq!(shop.order("\"k\"", 5).await.body, "run 3");
    assert_eq!(shop.runs(), 3);
}

/// Errors as the ledger makes them, with status and problem.
fn ends(key: ProviderKey) -> Vec<(EffectError, u16, &'static str)> {
    let (effect, again_in) = (|| CHARGE.to_owned(), Duration::from_secs(30));
    let reason = || "the bank said so".to_owned();
    let unreadable = serde_json::from_str::<u32>("{").expect_err("no number");
    let open = "unknown-outcome";
    vec![
        (EffectError::Refused { effect: effect(), reason: reason() }, 422, "refused"),
        (EffectError::NotDone { effect: effect(), reason: reason() }, 503, open),
        (EffectError::UnderWay { effect: effect(), again_in }, 503, open),
        (EffectError::Repeat { effect: effect(), key, reason: reason() }, 503, open),
        (EffectError::Asking { effect: effect(), key, again_in }, 503, open),
        (EffectError::Review { effect: effect(), key, again_in: None }, 503, "in-review"),
        (EffectError::Conflict { effect: effect() }, 422, "mismatch"),
        (EffectError::Unreadable { effect: effect(), source: unreadable }, 500, "interrupted"),
        (EffectError::Database(diesel::result::Error::NotFound), 503, open),
        (EffectError::Unavailable { reason: reason() }, 503, open),
    ]
}

async fn each_end_of_an_effect_has_an_answer_that_is_not_kept<C: Shopping>() {
    let database = C::database();
    let mut keeping = policy();
    keeping.server_errors = inbox::http::Keep::Stored;
    let front = Idempotency::new(keeping, C::pool(&database)).expect("a good policy");
    let key = effects::<C>(&database, "o1").key(CHARGE);
    let count = ends(key).len();
    let answers = front.clone();
    let shop = Server::layered(&front, move |run| {
        let answers = answers.clone();
        async move {
            let (error, ..) = ends(key).swap_remove(run - 1);
            answers.effect_failed(&error)
        }
    })
    .await;
    for (error, status, problem) in ends(key) {
        let answer = shop.order("\"k\"", 5).await;
        answer.expect_problem(status, problem);
        assert!(!answer.body.contains("the bank"), "{answer:?}");
        let waits = matches!(error, EffectError::UnderWay { .. } | EffectError::Asking { .. });
        assert_eq!(answer.header("retry-after") == "30", waits, "{error}: {answer:?}");
    }
    assert_eq!(shop.runs(), count);
    assert_eq!(C::count(&mut C::connection(&database), "inbox_requests"), 0);
}

async fn effects_before_the_transaction_leave_a_repeat_alone<C: Shopping>() {
    let (database, provider, gate) = (C::database(), Provider::default(), Gate::default());
    let front = Idempotency::new(policy(), C::pool(&database)).expect("a good policy");
    let ledger = effects::<C>(&database, "of no request");
    let runs = Arc::new(AtomicUsize::new(0));
    let (bank, held, counted, answers) =
        (provider.clone(), gate.clone(), runs.clone(), front.clone());
    let take = async move |order: Idempotent<Order, C>| -> Response {
        if let Some(earlier) = order.earlier().await {
            return earlier;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        let Some(operation) = order.operation() else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let effects = ledger.of(operation);
        let charge = effects.effect(CHARGE).request(&order.body().cents);
        let charged = charge.once(|key| bank.answers(key, Ok(7_u32))).await;
        let cents = match charged {
            Ok(cents) => cents,
            Err(error) => return answers.effect_failed(&error),
        };
        held.passed().await;
        order
            .run(move |tx, order| {
                place(tx, order)?;
                Ok(Reply::json(StatusCode::CREATED, &cents)?)
            })
            .await
    };
    let router = Router::new().route("/orders", post(take)).with_state(front);
    let shop = Arc::new(Server::serve(router, runs).await);
    let posting = shop.clone();
    let posting = tokio::spawn(async move { posting.order("\"k\"", 5).await });
    gate.entered().await;
    // Nothing is stored yet, and the ledger tells another body.
    shop.order("\"k\"", 6).await.expect_problem(422, "mismatch");
    gate.open();
    let first = posting.await.expect("no panic");
    assert_eq!((first.status, &*first.body), (201, "7"));
    let begun = shop.runs();
    let again = shop.order("\"k\"", 5).await;
    assert_eq!((again.is_replayed(), &again.body), (true, &first.body));
    shop.order("\"k\"", 6).await.expect_problem(422, "mismatch");
    assert_eq!((shop.runs(), provider.count()), (begun, 1));
    assert_eq!(C::credits(&mut C::connection(&database), "pen"), [5]);
}

/// One that is about to run is not turned away by those who only look.
async fn of_many_that_look_first_one_runs<C: Shopping>() {
    let (database, gate) = (C::database(), Gate::default());
    gate.open();
    let (shop, _) = looking::<C>(&database, &gate).await;
    let answers = join_all((0..40).map(|_| shop.order("\"k\"", 5))).await;
    let (placed, others): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 201);
    assert_eq!(placed.iter().filter(|answer| !answer.is_replayed()).count(), 1);
    others.iter().for_each(|answer| answer.expect_problem(409, "in-progress"));
    assert_eq!(C::credits(&mut C::connection(&database), "pen"), [5]);
}

/// What was done outside is not undone, and a new key would do it again.
async fn a_failure_behind_an_effect_claims_nothing_and_is_not_kept<C: Shopping>() {
    let (database, provider, recorded) = (C::database(), Provider::default(), Recorded::install());
    let mut keeping = policy();
    keeping.server_errors = inbox::http::Keep::Stored;
    let failed = format!("{REQUESTS} policy={},ending=failed", keeping.name);
    let front = Idempotency::new(keeping, C::pool(&database)).expect("a good policy");
    let (ledger, bank) = (effects::<C>(&database, "of no request"), provider.clone());
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let take = async move |order: Idempotent<Order, C>| -> Response {
        let Some(operation) = order.operation() else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let charge = ledger.of(operation).once(CHARGE, |key| bank.answers(key, Ok(7_u32))).await;
        assert_eq!(charge.expect("charged"), 7);
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        order
            .run(move |tx, order| match first {
                true => Err(Failed::new("the warehouse is on fire")),
                false => place(tx, order),
            })
            .await
    };
    let router = Router::new().route("/orders", post(take)).with_state(front);
    let shop = Server::serve(router, runs).await;
    shop.order("\"k\"", 5).await.expect_problem(503, "unknown-outcome");
    let again = shop.order("\"k\"", 5).await;
    assert_eq!((again.status, again.is_replayed()), (201, false));
    assert_eq!((provider.count(), recorded.counter(&failed)), (1, Some(1)));
}

async fn a_request_whose_handler_runs_no_transaction_is_counted<C: Shopping>() {
    let (database, recorded, counted) = (C::database(), Recorded::install(), policy());
    let series = |ending: &str| format!("{REQUESTS} policy={},ending={ending}", counted.name);
    let (refused, first) = (series("refused"), series("first"));
    let front = Idempotency::new(counted.clone(), C::pool(&database)).expect("a good policy");
    let take = async |order: Idempotent<Order, C>| -> Response {
        if order.body().cents < 0 {
            return StatusCode::PAYMENT_REQUIRED.into_response();
        }
        order.run(place).await
    };
    let router = Router::new().route("/orders", post(take)).with_state(front);
    let shop = Server::serve(router, Arc::default()).await;
    assert_eq!(shop.order("\"k\"", -5).await.status, 402);
    assert_eq!((recorded.counter(&refused), recorded.counter(&first)), (Some(1), Some(0)));
    assert_eq!(shop.order("\"k\"", 5).await.status, 201);
    assert_eq!((recorded.counter(&refused), recorded.counter(&first)), (Some(1), Some(1)));
}

/// A shop that looks before it runs; the second figure is how often it has gone on. Its handler waits at the gate.
async fn looking<C: Shopping>(
    database: &support::database::Database,
    gate: &Gate,
) -> (Arc<Server>, Arc<AtomicUsize>) {
    let front = Idempotency::new(policy(), C::pool(database)).expect("a good policy");
    let (held, went_on) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = went_on.clone();
    let take = async move |order: Idempotent<Order, C>| -> Response {
        if let Some(earlier) = order.earlier().await {
            return earlier;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        order
            .run(move |tx, order| {
                held.pass();
                place(tx, order)
            })
            .await
    };
    let router = Router::new().route("/orders", post(take)).with_state(front);
    (Arc::new(Server::serve(router, went_on.clone()).await), went_on)
}

async fn an_expired_key_is_as_new_to_who_looks_first<C: Shopping>() {
    let (database, gate) = (C::database(), Gate::default());
    gate.open();
    let (shop, went_on) = looking::<C>(&database, &gate).await;
    let first = shop.order("\"k\"", 5).await;
    assert_eq!((first.status, shop.order("\"k\"", 5).await.is_replayed()), (201, true));
    age(&mut C::connection(&database), 25);
    let next = shop.order("\"k\"", 6).await;
    assert_eq!((next.status, next.is_replayed()), (201, false));
    assert_eq!(went_on.load(Ordering::SeqCst), 2);
}

/// On SQLite nobody can find out what the holder of the write lock is about.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_in_progress_is_so_to_who_has_looked_first() {
    support::bounded(async {
        let (database, gate) = (<PgConnection as Store>::database(), Gate::default());
        let (shop, went_on) = looking::<PgConnection>(&database, &gate).await;
        let posting = shop.clone();
        let posting = tokio::spawn(async move { posting.order("\"k\"", 5).await });
        gate.entered().await;
        shop.order("\"k\"", 5).await.expect_problem(409, "in-progress");
        assert_eq!(went_on.load(Ordering::SeqCst), 2);
        gate.open();
        assert_eq!(posting.await.expect("no panic").status, 201);
        assert!(shop.order("\"k\"", 5).await.is_replayed());
    })
    .await;
}
