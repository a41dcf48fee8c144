//! What a ledger of effects is: called once, stored, given again, and nothing else under the same name.

use std::time::Duration;

use inbox::effect::admin::{Decision, Order, decide};
use inbox::effect::{
    Answer, CallFailure, EffectError, Effects, Ending, Policy, Reconciled, Reconciler, Settings,
    State,
};
use inbox::telemetry::{EFFECT_CALL_SECONDS, EFFECTS, EFFECTS_IN_REVIEW, EFFECTS_UNKNOWN};
use inbox::{BuildError, Consumer};
use support::effects::{
    CHARGE, Provider, all, effects, effects_with, failed, lose, lost, of_consumer, only, operation,
};
use support::inbox::{BILLING, Store};
use support::recorded::Recorded;
use tokio::sync::Semaphore;

use super::on_both;

on_both!(
    an_effect_is_performed_once_and_its_result_is_given_again,
    each_effect_of_each_operation_of_each_consumer_is_its_own,
    another_request_under_the_same_name_is_a_conflict,
    another_request_may_follow_one_that_was_certainly_not_performed,
    a_reason_that_no_column_could_hold_is_kept_as_far_as_one_can,
    settings_that_cannot_work_are_refused_and_endless_ones_work,
    a_refusal_is_stored_and_nobody_asks_again,
    what_was_certainly_not_done_is_called_again_with_the_same_key,
    two_processes_never_call_side_by_side,
    a_result_that_cannot_be_written_or_read_is_never_called_for_again,
    a_name_that_cannot_be_stored_is_refused_before_anything_is_called,
    each_ending_is_counted,
    calls_are_timed_by_how_they_ended_and_what_is_open_is_shown,
);

async fn an_effect_is_performed_once_and_its_result_is_given_again<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let mut receipts = Vec::new();
    for _ in 0..3 {
        // As after a restart: nothing but the database is left.
        let effects = effects::<C>(&database, "o1");
        let key = effects.key(CHARGE);
        let number = provider.count();
        let charged = effects.once(CHARGE, |given| {
            assert_eq!(given, key);
            provider.answers(given, Ok(format!("receipt {number}")))
        });
        receipts.push(charged.await.expect("charged"));
    }
    assert_eq!(receipts, ["receipt 0"; 3]);
    assert_eq!(provider.count(), 1);
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.policy, row.attempts), (State::Done, Policy::Review, 1));
    assert_eq!((row.result.as_deref(), row.key), (Some("\"receipt 0\""), provider.calls()[0]));
    assert!(row.settled_at.is_some() && row.lease_until.is_none() && row.unknown_since.is_none());
    // Nothing is a result too.
    let effects = effects::<C>(&database, "o2");
    for _ in 0..2 {
        effects.once(CHARGE, |key| provider.answers(key, Ok(()))).await.expect("charged");
    }
    assert_eq!(provider.count(), 2);
}

async fn each_effect_of_each_operation_of_each_consumer_is_its_own<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let all_of_them = [
        (of_consumer::<C>(&database, "billing", "o1"), "charge"),
        (of_consumer::<C>(&database, "billing", "o1"), "email"),
        (of_consumer::<C>(&database, "billing", "o2"), "charge"),
        (of_consumer::<C>(&database, "shipping", "o1"), "charge"),
    ];
    for _ in 0..2 {
        for (effects, name) in &all_of_them {
            effects.once(name, |key| provider.answers(key, Ok(()))).await.expect("performed");
        }
    }
    let mut keys = provider.calls();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((provider.count(), keys.len()), (4, 4));
    // A rebuild finds what the generation before it has done.
    let rebuilt = of_consumer::<C>(&database, "billing#2", "o1");
    rebuilt.once("charge", |key| provider.answers(key, Ok(()))).await.expect("stored");
    assert_eq!(provider.count(), 4);
}

async fn another_request_under_the_same_name_is_a_conflict<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    let charge = async |cents: u32| {
        let effect = effects.effect(CHARGE).request(&cents);
        effect.once(|key| provider.answers(key, Ok(cents))).await
    };
    assert_eq!(charge(50).await.expect("charged"), 50);
    assert!(matches!(failed(charge(51).await), EffectError::Conflict { .. }));
    assert_eq!(charge(50).await.expect("stored"), 50);
    assert_eq!(provider.count(), 1);
}

async fn another_request_may_follow_one_that_was_certainly_not_performed<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    let charge = async |cents: u32, answer: Result<u32, CallFailure>| {
        let effect = effects.effect(CHARGE).request(&cents);
        effect.once(|key| provider.answers(key, answer)).await
    };
    failed(charge(50, Err(CallFailure::not_done("busy"))).await);
    failed(charge(51, Err(lost())).await);
    for cents in [50, 52] {
        assert!(matches!(failed(charge(cents, Ok(1)).await), EffectError::Conflict { .. }));
    }
    let conn = &mut C::connection(&database);
    let number = only(conn).id;
    let order = Order::new("anna@desk", "the bank has never seen the key");
    decide(conn, number, &Decision::NotDone, &order).expect("decides");
    assert_eq!(charge(52, Ok(52)).await.expect("charged"), 52);
    assert!(matches!(failed(charge(51, Ok(1)).await), EffectError::Conflict { .. }));
    assert_eq!(provider.count(), 3);
}

async fn a_reason_that_no_column_could_hold_is_kept_as_far_as_one_can<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let reason = format!("no\0body {}", "x".repeat(10_000));
    type End = fn(String) -> CallFailure;
    let ends: [(_, End, _); 3] = [
        ("o1", CallFailure::refused, State::Failed),
        ("o2", CallFailure::not_done, State::Intended),
        ("o3", CallFailure::unknown, State::Unknown),
    ];
    for (id, end, state) in ends {
        let effects = effects::<C>(&database, id);
        let call = |key| provider.answers(key, Err::<(), _>(end(reason.clone())));
        failed(effects.once(CHARGE, call).await);
        let row = all(&mut C::connection(&database)).pop().expect("stored");
        assert_eq!(row.state, state);
        assert!(row.error.starts_with("no\u{2400}body xxx"), "{}", row.error);
        assert!(row.error.len() <= 4096, "{}", row.error.len());
    }
}

async fn settings_that_cannot_work_are_refused_and_endless_ones_work<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let mut settings = Settings::default();
    settings.poll = Duration::ZERO;
    let refused = Effects::with(C::pool(&database), BILLING, &operation("o1"), settings.clone());
    assert!(matches!(refused, Err(BuildError::BadSetting { setting: "effects.poll", .. })));
    let refused = Reconciler::new(C::pool(&database), BILLING, settings.clone());
    assert!(matches!(refused, Err(BuildError::BadSetting { setting: "effects.poll", .. })));
    settings.poll = Duration::MAX;
    (settings.deadline, settings.grace) = (Duration::MAX, Duration::MAX);
    (settings.ask_deadline, settings.unknown_for) = (Duration::MAX, Duration::MAX);
    (settings.ask_pause, settings.ask_pause_max) = (Duration::MAX, Duration::MAX);
    let effects = effects_with::<C>(&database, "o1", settings.clone());
    let error = lose(&effects, &provider, Policy::Ask).await;
    assert!(matches!(error, EffectError::Asking { .. }), "{error}");
    let reconciler = Reconciler::new(C::pool(&database), BILLING, settings).expect("works");
    let asked = reconciler.ask(CHARGE, async |_| Ok(Answer::<u32>::StillUnknown)).round().await;
    assert_eq!(asked.expect("looks"), Reconciled::default());
    let fine = effects.of(&operation("o2"));
    let charged =
        fine.effect(CHARGE).deadline(Duration::MAX).once(|key| provider.answers(key, Ok(7)));
    assert_eq!(charged.await.expect("charged"), 7);
}

async fn a_refusal_is_stored_and_nobody_asks_again<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    for _ in 0..2 {
        let refused = effects.effect(CHARGE).repeat_safe().once(|key| {
            provider.answers(key, Err::<(), _>(CallFailure::refused("the card was declined")))
        });
        let error = failed(refused.await);
        let EffectError::Refused { reason, .. } = &error else { panic!("{error}") };
        assert_eq!(reason, "the card was declined");
    }
    assert_eq!(provider.count(), 1);
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.error.as_str()), (State::Failed, "the card was declined"));
}

async fn what_was_certainly_not_done_is_called_again_with_the_same_key<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    let busy = effects.once(CHARGE, |key| {
        provider.answers(key, Err::<u32, _>(CallFailure::not_done("too many requests")))
    });
    let error = failed(busy.await);
    assert!(matches!(&error, EffectError::NotDone { reason, .. } if reason == "too many requests"));
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.attempts), (State::Intended, 1));
    let charged = effects.once(CHARGE, |key| provider.answers(key, Ok(7)));
    assert_eq!(charged.await.expect("charged"), 7);
    let calls = provider.calls();
    assert_eq!((calls.len(), calls[0]), (2, calls[1]));
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.attempts, row.error.as_str()), (State::Done, 2, ""));
}

async fn two_processes_never_call_side_by_side<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let (entered, go) = (Semaphore::new(0), Semaphore::new(0));
    let [one, other] = [effects::<C>(&database, "o1"), effects::<C>(&database, "o1")];
    let first = one.effect(CHARGE).repeat_safe().once(async |key| {
        entered.add_permits(1);
        go.acquire().await.expect("open").forget();
        provider.answers(key, Ok(1)).await
    });
    let second = async {
        entered.acquire().await.expect("open").forget();
        let error = failed(
            other.effect(CHARGE).repeat_safe().once(|key| provider.answers(key, Ok(2))).await,
        );
        go.add_permits(1);
        error
    };
    let (first, error) = tokio::join!(first, second);
    assert_eq!(first.expect("charged"), 1);
    let EffectError::UnderWay { again_in, .. } = error else { panic!("{error}") };
    assert!(again_in <= Duration::from_secs(5), "{again_in:?}");
    let again = other.effect(CHARGE).repeat_safe().once(|key| provider.answers(key, Ok(2)));
    assert_eq!((again.await.expect("stored"), provider.count()), (1, 1));
}

#[derive(Debug, serde::Deserialize)]
struct Unwritable;

impl serde::Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}

async fn a_result_that_cannot_be_written_or_read_is_never_called_for_again<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let first = effects::<C>(&database, "o1");
    let charged = first.once(CHARGE, |key| provider.answers(key, Ok(Unwritable)));
    assert!(matches!(failed(charged.await), EffectError::Unwritable { what: "result", .. }));
    assert_eq!(only(&mut C::connection(&database)).state, State::Done);
    let second = effects::<C>(&database, "o2");
    let text = second.once(CHARGE, |key| provider.answers(key, Ok("a text".to_owned())));
    assert_eq!(text.await.expect("charged"), "a text");
    let read = second.once(CHARGE, |key| provider.answers(key, Ok(7_u32)));
    assert!(matches!(failed(read.await), EffectError::Unreadable { .. }));
    let request =
        second.effect("email").request(&Unwritable).once(|key| provider.answers(key, Ok(())));
    assert!(matches!(failed(request.await), EffectError::Unwritable { what: "request", .. }));
    assert_eq!((provider.count(), all(&mut C::connection(&database)).len()), (2, 2));
}

async fn a_name_that_cannot_be_stored_is_refused_before_anything_is_called<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    for name in ["", "a\0b", &"x".repeat(256)] {
        let refused = effects.once(name, |key| provider.answers(key, Ok(())));
        assert!(matches!(failed(refused.await), EffectError::Invalid(_)), "{name:?}");
    }
    assert_eq!((provider.count(), all(&mut C::connection(&database)).len()), (0, 0));
}

async fn each_ending_is_counted<C: Store>() {
    let recorded = Recorded::install();
    let (database, provider) = (C::database(), Provider::default());
    let consumer = format!("counted-{}", C::NAME);
    let effects = of_consumer::<C>(&database, &consumer, "o1");
    for _ in 0..3 {
        effects.once("a", |key| provider.answers(key, Ok(()))).await.expect("done");
    }
    let refusal = || CallFailure::refused("no");
    let _ = effects.once("b", |key| provider.answers(key, Err::<(), _>(refusal()))).await;
    let _ = effects
        .once("c", |key| provider.answers(key, Err::<(), _>(support::effects::lost())))
        .await;
    let _ = effects.effect("a").request("else").once(|key| provider.answers(key, Ok(()))).await;
    for (ending, count) in [
        (Ending::Done, 1),
        (Ending::Stored, 2),
        (Ending::Refused, 1),
        (Ending::Review, 1),
        (Ending::Conflict, 1),
        (Ending::Late, 0),
    ] {
        let series = format!("{EFFECTS} consumer={consumer},ending={}", ending.as_str());
        assert_eq!(recorded.counter(&series), Some(count), "{series}");
    }
}

async fn calls_are_timed_by_how_they_ended_and_what_is_open_is_shown<C: Store>() {
    let recorded = Recorded::install();
    let database = C::database();
    let consumer = format!("timed-{}", C::NAME);
    let effects = of_consumer::<C>(&database, &consumer, "o1");
    let named = |name: &str| format!("{name} consumer={consumer}");
    effects.once("a", async |_| Ok(())).await.expect("done");
    failed(effects.once("b", async |_| Err::<(), _>(CallFailure::refused("no"))).await);
    failed(effects.once("c", async |_| -> Result<(), CallFailure> { panic!("oh") }).await);
    // Long enough for the commit of the intent, which counts.
    let short = Duration::from_secs(4);
    let hung = effects.effect("d").reconciled().deadline(short);
    failed(hung.once(async |_| std::future::pending::<Result<(), _>>().await).await);
    for (ended, count) in [("answered", 2), ("panicked", 1), ("timed_out", 1), ("not_begun", 0)] {
        let series = named(EFFECT_CALL_SECONDS) + ",ended=" + ended;
        assert_eq!(recorded.counter(&series), Some(count), "{series}");
    }
    let pool = C::pool(&database);
    let reconciler = Reconciler::new(pool, Consumer(&consumer), Settings::default());
    reconciler.expect("settings that can work").round().await.expect("looks");
    // What panicked and what got no answer; of these the first is a person's, the other one can be asked about.
    let (unknown, in_review) = (named(EFFECTS_UNKNOWN), named(EFFECTS_IN_REVIEW));
    assert_eq!((recorded.gauge(&unknown), recorded.gauge(&in_review)), (Some(2.0), Some(1.0)));
}
