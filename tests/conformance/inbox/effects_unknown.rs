//! What becomes of an effect whose outcome nobody knows, by its policy.

use std::time::Duration;

use inbox::effect::{
    Answer, BoxError, CallFailure, EffectError, Effects, Policy, Reconciled, Reconciler, Settings,
    State,
};
use support::effects::{
    CHARGE, Provider, all, die, effects, effects_with, failed, lose, only, pass,
};
use support::inbox::{BILLING, Store};
use tokio::sync::Semaphore;

use super::on_both;

on_both!(
    what_is_safe_to_repeat_is_called_again_with_the_same_key,
    not_done_this_time_says_nothing_about_the_time_before,
    what_nothing_is_known_about_waits_for_a_person_and_is_never_repeated,
    a_more_generous_policy_does_not_overrule_that_a_person_was_called,
    a_provider_is_not_asked_at_once_where_it_was_repeated_until_now,
    what_is_repeated_without_end_is_for_a_person_some_day,
    what_is_safe_to_repeat_is_so_for_its_time_also_where_nobody_has_looked,
    a_provider_that_says_done_spares_the_call,
    a_provider_that_says_not_done_is_called_again,
    a_provider_that_does_not_know_is_asked_until_a_person_is,
    a_question_that_fails_or_panics_or_hangs_has_no_answer,
    a_call_without_an_answer_in_time_is_unknown,
    a_call_that_panics_is_unknown,
    a_call_whose_process_dies_is_unknown_once_its_lease_is_over,
);

const HOUR: Duration = Duration::from_secs(3600);

async fn what_is_safe_to_repeat_is_called_again_with_the_same_key<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    for attempts in 1..=3 {
        let error = lose(&effects, &provider, Policy::RepeatSafe).await;
        assert!(matches!(error, EffectError::Repeat { .. }), "{error}");
        let row = only(&mut C::connection(&database));
        assert_eq!((row.state, row.attempts), (State::Unknown, attempts));
        assert_eq!((row.error.as_str(), row.review_since), ("the connection broke", None));
    }
    let charged = effects.effect(CHARGE).repeat_safe().once(|key| provider.answers(key, Ok(7)));
    assert_eq!(charged.await.expect("charged"), 7);
    assert_eq!(provider.calls(), [effects.key(CHARGE); 4]);
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.unknown_since), (State::Done, None));
}

async fn not_done_this_time_says_nothing_about_the_time_before<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    lose(&effects, &provider, Policy::RepeatSafe).await;
    let refused = effects.effect(CHARGE).repeat_safe().once(|key| {
        provider.answers(key, Err::<u32, _>(CallFailure::not_done("connection refused")))
    });
    let error = failed(refused.await);
    assert!(matches!(error, EffectError::Repeat { .. }), "{error}");
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.attempts), (State::Unknown, 2));
    // Whoever does not repeat it would do so blindly.
    let error = lose(&effects, &provider, Policy::Review).await;
    assert!(matches!(error, EffectError::Review { .. }), "{error}");
    assert_eq!(provider.count(), 2);
}

async fn what_nothing_is_known_about_waits_for_a_person_and_is_never_repeated<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    for _ in 0..3 {
        let error = lose(&effects, &provider, Policy::Review).await;
        let EffectError::Review { key, .. } = &error else { panic!("{error}") };
        assert_eq!(*key, effects.key(CHARGE));
        pass(&mut C::connection(&database), HOUR);
    }
    assert_eq!(provider.count(), 1);
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.attempts), (State::Unknown, 1));
    assert!(row.review_since.is_some() && row.unknown_since.is_some());
}

async fn a_more_generous_policy_does_not_overrule_that_a_person_was_called<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    lose(&effects, &provider, Policy::Review).await;
    for policy in [Policy::RepeatSafe, Policy::Ask] {
        let error = lose(&effects, &provider, policy).await;
        assert!(matches!(error, EffectError::Review { .. }), "{error}");
    }
    assert_eq!(provider.count(), 1);
}

async fn a_provider_is_not_asked_at_once_where_it_was_repeated_until_now<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    lose(&effects, &provider, Policy::RepeatSafe).await;
    let (early, asked) = asking(&effects, &provider, || panic!("too early")).await;
    assert!(matches!(failed(early), EffectError::Asking { .. }));
    pass(&mut C::connection(&database), Settings::default().grace);
    let (brought, later) = asking(&effects, &provider, || Ok(Answer::Done(5))).await;
    assert_eq!((brought.expect("done"), asked, later, provider.count()), (5, 0, 1, 1));
}

async fn what_is_repeated_without_end_is_for_a_person_some_day<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    lose(&effects, &provider, Policy::RepeatSafe).await;
    let reconciler = Reconciler::new(C::pool(&database), BILLING, Settings::default());
    let reconciler = reconciler.expect("settings that can work");
    let conn = &mut C::connection(&database);
    pass(conn, 23 * HOUR);
    assert_eq!(reconciler.round().await.expect("looks"), Reconciled::default());
    pass(conn, HOUR);
    for reviewed in [1, 0] {
        assert_eq!(reconciler.round().await.expect("looks").reviewed, reviewed);
    }
    // Who knows whether the provider still knows the key.
    let error = lose(&effects, &provider, Policy::RepeatSafe).await;
    assert!(matches!(error, EffectError::Review { .. }), "{error}");
    assert_eq!(provider.count(), 1);
}

async fn what_is_safe_to_repeat_is_so_for_its_time_also_where_nobody_has_looked<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let [lost, dead, left] = ["lost", "dead", "left"].map(|id| effects::<C>(&database, id));
    lose(&lost, &provider, Policy::RepeatSafe).await;
    die(&dead, Policy::RepeatSafe).await;
    die(&left, Policy::RepeatSafe).await;
    let conn = &mut C::connection(&database);
    // The service was away for so long; the provider has forgotten the key perhaps.
    pass(conn, 25 * HOUR);
    for effects in [&lost, &dead] {
        let error = lose(effects, &provider, Policy::RepeatSafe).await;
        assert!(matches!(error, EffectError::Review { .. }), "{error}");
    }
    assert_eq!(provider.count(), 1);
    // It is the call that counts, and not who has found out about it.
    let reconciler = Reconciler::new(C::pool(&database), BILLING, Settings::default());
    let looked = reconciler.expect("settings that can work").round().await.expect("looks");
    assert_eq!((looked.lapsed, looked.reviewed), (1, 1));
    assert!(all(conn).iter().all(|row| row.review_since.is_some()));
}

/// Wants the effect, asking with this answer. What is brought, and how many questions were asked.
async fn asking(
    effects: &Effects,
    provider: &Provider,
    answer: impl Fn() -> Result<Answer<u32>, BoxError> + Send + Sync,
) -> (Result<u32, EffectError>, usize) {
    let asked = Semaphore::new(0);
    let effect = effects.effect(CHARGE).ask(async |key| {
        assert_eq!(key, effects.key(CHARGE));
        asked.add_permits(1);
        answer()
    });
    let brought = effect.once(|key| provider.answers(key, Ok(9))).await;
    (brought, asked.available_permits())
}

async fn a_provider_that_says_done_spares_the_call<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    assert!(matches!(lose(&effects, &provider, Policy::Ask).await, EffectError::Asking { .. }));
    // Not while a request may still be on its way.
    let (early, asked) = asking(&effects, &provider, || panic!("too early")).await;
    let error = failed(early);
    let EffectError::Asking { again_in, .. } = error else { panic!("{error}") };
    assert!(again_in > Duration::ZERO && again_in <= Settings::default().grace, "{again_in:?}");
    assert_eq!(asked, 0);
    pass(&mut C::connection(&database), HOUR);
    for questions in [1, 0] {
        let (brought, asked) = asking(&effects, &provider, || Ok(Answer::Done(5))).await;
        assert_eq!((brought.expect("done"), asked), (5, questions));
    }
    assert_eq!(provider.count(), 1);
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.result.as_deref(), row.attempts), (State::Done, Some("5"), 1));
}

async fn a_provider_that_says_not_done_is_called_again<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    lose(&effects, &provider, Policy::Ask).await;
    pass(&mut C::connection(&database), HOUR);
    let (brought, asked) = asking(&effects, &provider, || Ok(Answer::NotDone)).await;
    assert_eq!((brought.expect("called"), asked), (9, 1));
    assert_eq!(provider.calls(), [effects.key(CHARGE); 2]);
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.attempts, row.unknown_since), (State::Done, 2, None));
}

async fn a_provider_that_does_not_know_is_asked_until_a_person_is<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let mut settings = Settings::default();
    settings.asks = 3;
    let effects = effects_with::<C>(&database, "o1", settings);
    lose(&effects, &provider, Policy::Ask).await;
    for question in 1..=3 {
        pass(&mut C::connection(&database), HOUR);
        let (brought, asked) = asking(&effects, &provider, || Ok(Answer::StillUnknown)).await;
        let error = failed(brought);
        match error {
            EffectError::Asking { again_in, .. } if question < 3 => {
                assert!(again_in >= Duration::from_secs(2), "{again_in:?}");
            }
            EffectError::Review { .. } if question == 3 => {}
            other => panic!("{question}: {other}"),
        }
        assert_eq!((asked, only(&mut C::connection(&database)).asks), (1, question));
    }
    pass(&mut C::connection(&database), HOUR);
    let (brought, asked) = asking(&effects, &provider, || panic!("a person was asked")).await;
    assert!(matches!(failed(brought), EffectError::Review { .. }));
    assert_eq!((asked, provider.count()), (0, 1));
}

async fn a_question_that_fails_or_panics_or_hangs_has_no_answer<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let mut settings = Settings::default();
    settings.ask_deadline = Duration::from_millis(5);
    let effects = effects_with::<C>(&database, "o1", settings);
    lose(&effects, &provider, Policy::Ask).await;
    pass(&mut C::connection(&database), HOUR);
    let (brought, _) = asking(&effects, &provider, || Err("away".into())).await;
    assert!(matches!(failed(brought), EffectError::Asking { .. }));
    pass(&mut C::connection(&database), HOUR);
    let (brought, _) = asking(&effects, &provider, || panic!("no idea")).await;
    assert!(matches!(failed(brought), EffectError::Asking { .. }));
    pass(&mut C::connection(&database), HOUR);
    let hanging = effects.effect(CHARGE).ask(async |_| {
        std::future::pending::<()>().await;
        Ok(Answer::Done(1))
    });
    let brought = hanging.once(|key| provider.answers(key, Ok(9))).await;
    assert!(matches!(failed(brought), EffectError::Asking { .. }));
    assert_eq!((provider.count(), only(&mut C::connection(&database)).asks), (1, 3));
}

async fn a_call_without_an_answer_in_time_is_unknown<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    // Long enough for the connection and the commit of the intent, which count.
    let hung = effects.effect(CHARGE).deadline(Duration::from_secs(4)).once(async |key| {
        provider.answers(key, Ok(())).await?;
        std::future::pending::<()>().await;
        Ok(1)
    });
    assert!(matches!(failed(hung.await), EffectError::Review { .. }));
    let row = only(&mut C::connection(&database));
    assert_eq!((row.state, row.error.as_str()), (State::Unknown, "no answer in time"));
    assert_eq!(provider.count(), 1);
}

async fn a_call_that_panics_is_unknown<C: Store>() {
    let database = C::database();
    let effects = effects::<C>(&database, "o1");
    let panicking = effects.once(CHARGE, async |_| -> Result<u32, CallFailure> { panic!("oh") });
    assert!(matches!(failed(panicking.await), EffectError::Review { .. }));
    assert_eq!(only(&mut C::connection(&database)).error, "panicked: oh");
}

async fn a_call_whose_process_dies_is_unknown_once_its_lease_is_over<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    for (id, policy) in [("o1", Policy::RepeatSafe), ("o2", Policy::Ask), ("o3", Policy::Review)] {
        let effects = effects::<C>(&database, id);
        let entered = Semaphore::new(0);
        let effect = effects.effect(CHARGE);
        let dying = effect.once(async |key| {
            entered.add_permits(1);
            provider.answers(key, Ok(())).await?;
            std::future::pending::<Result<u32, _>>().await
        });
        // Dropped in the call: nothing is written any more, as by a process that is killed.
        tokio::select! {
            _ = dying => panic!("hangs"),
            _ = entered.acquire() => {}
        }
        let calls = provider.count();
        let error = lose(&effects, &provider, policy).await;
        assert!(matches!(error, EffectError::UnderWay { .. }), "{error}");
        pass(&mut C::connection(&database), HOUR);
        let error = lose(&effects, &provider, policy).await;
        let repeated = provider.count() - calls;
        match policy {
            Policy::RepeatSafe => {
                assert!(matches!(error, EffectError::Repeat { .. }) && repeated == 1)
            }
            Policy::Ask => assert!(matches!(error, EffectError::Asking { .. }) && repeated == 0),
            Policy::Review => assert!(matches!(error, EffectError::Review { .. }) && repeated == 0),
        }
    }
}
