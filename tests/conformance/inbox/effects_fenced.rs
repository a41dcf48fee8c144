//! Who calls, and who reports late: an attempt that was taken for dead and was not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use inbox::Consumer;
use inbox::effect::admin::{Decision, Order, decide};
use inbox::effect::{
    Answer, CallFailure, EffectError, Effects, Policy, Reconciler, Settings, State,
};
use inbox::telemetry::EFFECTS;
use support::database::Database;
use support::effects::{
    CHARGE, Provider, die, effects, effects_with, failed, lose, lost, of_consumer, only, operation,
    overtaken, pass,
};
use support::inbox::{BILLING, Store};
use support::recorded::Recorded;
use tokio::sync::{Barrier, Semaphore};

use super::on_both;

on_both!(
    of_many_that_want_an_effect_at_once_one_calls,
    the_newest_attempt_is_believed_although_it_was_taken_for_dead,
    a_late_done_ends_what_is_open,
    a_late_done_is_kept_while_another_call_is_under_way_and_decides_when_that_is_not_done,
    what_a_late_done_brought_is_nobody_s_who_asks_for_something_else,
    a_late_done_changes_nothing_that_is_settled_and_is_counted,
    a_late_refusal_or_loss_says_nothing,
    a_late_report_does_not_undo_a_decision,
    a_person_who_was_called_stays_called_when_the_attempt_reports,
    what_the_provider_said_of_the_newest_attempt_is_no_second_performance,
);

const HOUR: Duration = Duration::from_secs(3600);

async fn look_after<C: Store>(database: &Database) {
    let reconciler = Reconciler::new(C::pool(database), BILLING, Settings::default())
        .expect("settings that can work");
    reconciler.round().await.expect("looks after them");
}

async fn call(effects: &Effects, answer: Result<u32, CallFailure>) -> Result<u32, EffectError> {
    let provider = Provider::default();
    let effect = effects.effect(CHARGE).repeat_safe();
    effect.once(|key| provider.answers(key, answer)).await
}

/// However the effect stands: not begun, of unknown outcome, or of a process that has died.
async fn of_many_that_want_an_effect_at_once_one_calls<C: Store>() {
    const MANY: usize = 8;
    let (database, provider) = (C::database(), Provider::default());
    let pool = C::pool_with(&database, db::Settings::default().with_pool_size(8));
    for round in 0..30 {
        let id = format!("o{round}");
        match round % 3 {
            0 => {}
            1 => drop(lose(&effects::<C>(&database, &id), &provider, Policy::RepeatSafe).await),
            _ => {
                die(&effects::<C>(&database, &id), Policy::RepeatSafe).await;
                pass(&mut C::connection(&database), HOUR);
            }
        }
        let (all_here, calls) = (Barrier::new(MANY), AtomicUsize::new(0));
        let each = (0..MANY).map(|_| async {
            let effects = Effects::new(pool.clone(), BILLING, &operation(&id));
            let call = effects.effect(CHARGE).repeat_safe().once(async |_| {
                calls.fetch_add(1, Ordering::SeqCst);
                // Nobody is answered with what is stored: everybody has come before there is a result.
                all_here.wait().await;
                Ok(1)
            });
            let brought = call.await;
            if brought.is_err() {
                all_here.wait().await;
            }
            brought
        });
        for brought in join_all(each).await {
            assert!(
                matches!(brought, Ok(1) | Err(EffectError::UnderWay { .. })),
                "round {round}: {brought:?}"
            );
        }
        assert_eq!(calls.into_inner(), 1, "round {round}");
    }
}

async fn the_newest_attempt_is_believed_although_it_was_taken_for_dead<C: Store>() {
    let database = C::database();
    for (id, end, state) in [
        ("o1", Ok(1), State::Done),
        ("o2", Err(CallFailure::refused("no")), State::Failed),
        ("o3", Err(lost()), State::Unknown),
        ("o4", Err(CallFailure::not_done("connection refused")), State::Intended),
    ] {
        let effects = effects::<C>(&database, id);
        let brought = overtaken::<C>(&database, &effects, end, async || {
            look_after::<C>(&database).await;
        });
        let brought = brought.await;
        let conn = &mut C::connection(&database);
        let row = support::effects::all(conn).pop().expect("stored");
        assert_eq!((row.state, row.attempts, row.late_at), (state, 1, None), "{brought:?}");
        assert_eq!(brought.is_ok(), state == State::Done);
    }
}

async fn a_late_done_ends_what_is_open<C: Store>() {
    let database = C::database();
    let effects = effects::<C>(&database, "o1");
    let brought = overtaken::<C>(&database, &effects, Ok(1), async || {
        let error = failed(call(&effects, Err(lost())).await);
        assert!(matches!(error, EffectError::Repeat { .. }), "{error}");
    });
    assert_eq!(brought.await.expect("was done"), 1);
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.attempts, row.result.as_deref()), (State::Done, 2, Some("1")));
    assert!(row.late_at.is_some() && row.unknown_since.is_none());
    assert_eq!(call(&effects, Ok(2)).await.expect("stored"), 1);
}

/// A second attempt begins, asking for `request`; the first one says that it is done; then the second one ends. Where it
/// was decided before that the first one did nothing, the second is not in doubt about it. What the second one brought.
async fn reported_meanwhile<C: Store>(
    database: &Database,
    id: &str,
    end: Result<u32, CallFailure>,
    decided: bool,
    request: Option<u32>,
) -> Result<u32, EffectError> {
    let [zombie, newest] = [effects::<C>(database, id), effects::<C>(database, id)];
    let [begin, begun, reported] = [0; 3].map(Semaphore::new);
    let second = async {
        begin.acquire().await.expect("open").forget();
        let effect = newest.effect(CHARGE).repeat_safe();
        let effect = match request {
            Some(request) => effect.request(&request),
            None => effect,
        };
        let call = effect.once(async |_| {
            begun.add_permits(1);
            reported.acquire().await.expect("open").forget();
            end
        });
        call.await
    };
    let first = async {
        let brought = overtaken::<C>(database, &zombie, Ok(1), async || {
            if decided {
                let conn = &mut C::connection(database);
                let number = support::effects::all(conn).pop().expect("stored").id;
                let order = Order::new("anna@desk", "asked the bank");
                decide(conn, number, &Decision::NotDone, &order).expect("decides");
            }
            begin.add_permits(1);
            begun.acquire().await.expect("open").forget();
        });
        let error = failed(brought.await);
        assert!(matches!(error, EffectError::UnderWay { .. }), "{error}");
        reported.add_permits(1);
    };
    tokio::join!(first, second).1
}

async fn a_late_done_is_kept_while_another_call_is_under_way_and_decides_when_that_is_not_done<
    C: Store,
>() {
    let database = C::database();
    let end = |kind| match kind {
        "lost" => lost(),
        "not-done" => CallFailure::not_done("connection refused"),
        // To whoever has paid already.
        _ => CallFailure::refused("insufficient funds"),
    };
    for kind in ["lost", "not-done", "refused"] {
        for decided in [false, true] {
            let id = format!("{kind}-{decided}");
            let brought =
                reported_meanwhile::<C>(&database, &id, Err(end(kind)), decided, None).await;
            assert_eq!(brought.expect("done by the first"), 1, "{id}");
            let again = effects::<C>(&database, &id);
            assert_eq!(call(&again, Ok(2)).await.expect("stored"), 1);
        }
    }
}

async fn what_a_late_done_brought_is_nobody_s_who_asks_for_something_else<C: Store>() {
    let database = C::database();
    let other = async |id: &str, answer| {
        let effects = effects::<C>(&database, id);
        let effect = effects.effect(CHARGE).repeat_safe().request(&52);
        effect.once(async |_| answer).await
    };
    // While the other request is under way.
    let brought = reported_meanwhile::<C>(&database, "o1", Err(lost()), true, Some(52)).await;
    let error = failed(brought);
    assert!(matches!(error, EffectError::Conflict { .. }), "{error}");
    // And it is done as well: it is the newest.
    let brought = reported_meanwhile::<C>(&database, "o3", Ok(2), true, Some(52)).await;
    assert_eq!(brought.expect("its own"), 2);
    assert_eq!(other("o3", Ok(3)).await.expect("stored"), 2);
    // After it was lost.
    let effects = effects::<C>(&database, "o2");
    let brought = overtaken::<C>(&database, &effects, Ok(1), async || {
        let conn = &mut C::connection(&database);
        let number = support::effects::all(conn).pop().expect("stored").id;
        let order = Order::new("anna@desk", "asked the bank");
        decide(conn, number, &Decision::NotDone, &order).expect("decides");
        let error = failed(other("o2", Err(lost())).await);
        assert!(matches!(error, EffectError::Repeat { .. }), "{error}");
    });
    assert_eq!(brought.await.expect("its own"), 1);
    for id in ["o1", "o2"] {
        let error = failed(other(id, Ok(2)).await);
        assert!(matches!(error, EffectError::Conflict { .. }), "{error}");
        let first = support::effects::effects::<C>(&database, id);
        assert_eq!(call(&first, Ok(2)).await.expect("stored"), 1);
    }
}

async fn a_late_done_changes_nothing_that_is_settled_and_is_counted<C: Store>() {
    let recorded = Recorded::install();
    let database = C::database();
    let consumer = format!("late-{}", C::NAME);
    let effects = of_consumer::<C>(&database, &consumer, "o1");
    let (entered, go) = (Semaphore::new(0), Semaphore::new(0));
    let zombie = effects.effect(CHARGE).repeat_safe().once(async |_| {
        entered.add_permits(1);
        go.acquire().await.expect("open").forget();
        Ok(1)
    });
    let others = async {
        entered.acquire().await.expect("open").forget();
        let conn = &mut C::connection(&database);
        inbox::testing::pass_time(conn, Consumer(&consumer), HOUR).expect("passes");
        assert_eq!(call(&effects, Ok(2)).await.expect("called"), 2);
        go.add_permits(1);
    };
    let (brought, ()) = tokio::join!(zombie, others);
    assert_eq!(brought.expect("everybody gets the one result"), 2);
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.result.as_deref()), (State::Done, Some("2")));
    assert_eq!((row.late_result.as_deref(), row.late_at.is_some()), (Some("1"), true));
    assert_eq!(recorded.counter(&format!("{EFFECTS} consumer={consumer},ending=late")), Some(1));
}

async fn a_late_refusal_or_loss_says_nothing<C: Store>() {
    let database = C::database();
    let ends = [CallFailure::refused("no"), CallFailure::not_done("busy"), lost()];
    for (id, end) in ["o1", "o2", "o3"].into_iter().zip(ends) {
        let effects = effects::<C>(&database, id);
        let brought = overtaken::<C>(&database, &effects, Err(end), async || {
            failed(call(&effects, Err(lost())).await);
        });
        let error = failed(brought.await);
        assert!(matches!(error, EffectError::Repeat { .. }), "{error}");
        let row = support::effects::all(&mut C::connection(&database)).pop().expect("stored");
        assert_eq!((row.state, row.attempts, row.late_at), (State::Unknown, 2, None));
    }
}

async fn a_late_report_does_not_undo_a_decision<C: Store>() {
    let database = C::database();
    let order = Order::new("anna@desk", "asked the bank");
    for (id, decision, state) in [
        ("o1", Decision::Failed, State::Failed),
        ("o2", Decision::Done(Some("5".to_owned())), State::Done),
        // The one thing that a person cannot know: it is done after all, and must not be called again.
        ("o3", Decision::NotDone, State::Done),
    ] {
        let effects = effects::<C>(&database, id);
        let brought = overtaken::<C>(&database, &effects, Ok(1), async || {
            let conn = &mut C::connection(&database);
            let number = support::effects::all(conn).pop().expect("stored").id;
            decide(conn, number, &decision, &order).expect("decides");
        });
        let brought = brought.await;
        let row = support::effects::all(&mut C::connection(&database)).pop().expect("stored");
        assert_eq!((row.state, row.late_result.as_deref()), (state, Some("1")), "{brought:?}");
        let again = call(&effects, Ok(2)).await;
        match (state, id) {
            (State::Failed, _) => assert!(matches!(failed(again), EffectError::Refused { .. })),
            (_, "o2") => assert_eq!(again.expect("decided"), 5),
            _ => assert_eq!(again.expect("reported late"), 1),
        }
    }
}

async fn a_person_who_was_called_stays_called_when_the_attempt_reports<C: Store>() {
    let database = C::database();
    let mut settings = Settings::default();
    settings.asks = 1;
    let effects = effects_with::<C>(&database, "o1", settings);
    failed(call(&effects, Err(lost())).await);
    let end = Err(CallFailure::not_done("connection refused"));
    let mut called = None;
    let brought = overtaken::<C>(&database, &effects, end, async || {
        // The second attempt is taken for dead, and the provider does not know: a person is called.
        let effect = effects.effect(CHARGE).ask(async |_| Ok(Answer::<u32>::StillUnknown));
        let error = failed(effect.once(async |_| Ok(2)).await);
        assert!(matches!(error, EffectError::Review { .. }), "{error}");
        called = only(&mut C::connection(&database)).review_since;
        assert!(called.is_some());
    });
    let error = failed(brought.await);
    assert!(matches!(error, EffectError::Review { .. }), "{error}");
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.attempts, row.ask_at), (State::Unknown, 2, None));
    assert_eq!(row.error, "connection refused");
    // Nor does the wait for that person begin anew.
    assert_eq!(row.review_since, called);
}

async fn what_the_provider_said_of_the_newest_attempt_is_no_second_performance<C: Store>() {
    let database = C::database();
    let effects = effects::<C>(&database, "o1");
    let brought = overtaken::<C>(&database, &effects, Ok(1), async || {
        let effect = effects.effect(CHARGE).ask(async |_| Ok(Answer::Done(5)));
        assert_eq!(effect.once(async |_| Ok(2)).await.expect("the provider says so"), 5);
    });
    assert_eq!(brought.await.expect("everybody gets the stored one"), 5);
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.attempts, row.late_at), (State::Done, 1, None));
}
