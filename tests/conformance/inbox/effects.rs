//! What a ledger of effects is: called once, stored, given again, and nothing else under the same name.

use std::time::Duration;

use inbox::effect::{CallFailure, EffectError, Ending, Policy, State};
use inbox::telemetry::EFFECTS;
use support::effects::{CHARGE, Provider, all, effects, failed, of_consumer, only};
use support::inbox::Store;
use support::recorded::Recorded;
use tokio::sync::Semaphore;

use super::on_both;

on_both!(
    an_effect_is_performed_once_and_its_result_is_given_again,
    each_effect_of_each_operation_of_each_consumer_is_its_own,
    another_request_under_the_same_name_is_a_conflict,
    a_refusal_is_stored_and_nobody_asks_again,
    what_was_certainly_not_done_is_called_again_with_the_same_key,
    two_processes_never_call_side_by_side,
    a_result_that_cannot_be_written_or_read_is_never_called_for_again,
    a_name_that_cannot_be_stored_is_refused_before_anything_is_called,
    each_ending_is_counted,
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
