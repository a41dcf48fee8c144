//! What was done in the world is undone, once, and what was not done is called off.

use inbox::effect::admin::{Decision, Order, decide};
use inbox::effect::{CallFailure, Compensated, EffectError, Effects, Policy, State};
use inbox::telemetry::EFFECTS;
use message::OperationKey;
use support::effects::{
    CHARGE, Provider, all, die, effects, failed, lose, lost, of_consumer, only, operation,
    overtaken,
};
use support::inbox::Store;
use support::recorded::Recorded;

use super::on_both;

on_both!(
    an_effect_is_undone_once_with_what_it_brought,
    another_message_undoes_what_its_own_operation_did,
    what_was_never_performed_is_called_off_and_never_will_be,
    what_may_have_been_performed_is_not_undone_before_it_is_known,
    what_was_refused_and_reported_done_since_is_for_a_person,
);

async fn an_effect_is_undone_once_with_what_it_brought<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let (voids, order) = (Provider::default(), effects::<C>(&database, "o1"));
    let charged = order.once(CHARGE, |key| provider.answers(key, Ok(7_u32)));
    assert_eq!(charged.await.expect("charged"), 7);
    for answer in [Err(lost()), Ok("void"), Ok("another void")] {
        let undone = order.effect(CHARGE).repeat_safe().compensate(|key, done: u32| {
            assert_eq!(done, 7);
            voids.answers(key, answer.map(str::to_owned))
        });
        match undone.await {
            Ok(void) => assert_eq!(void, Compensated::Undone("void".to_owned())),
            Err(error) => assert!(matches!(error, EffectError::Repeat { .. }), "{error}"),
        }
    }
    let calls = voids.calls();
    assert_eq!((calls.len(), calls[0]), (2, calls[1]));
    assert_eq!(calls[0], order.key("charge/compensation"));
    assert_ne!(calls[0], order.key(CHARGE));
    let names: Vec<_> =
        all(&mut C::connection(&database)).into_iter().map(|row| row.effect).collect();
    assert_eq!(names, ["charge", "charge/compensation"]);
}

async fn what_was_never_performed_is_called_off_and_never_will_be<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let nothing = async |effects: &Effects| {
        let effect = effects.effect(CHARGE);
        let undone = effect.compensate(|key, (): ()| provider.answers(key, Ok(())));
        undone.await.expect("nothing to undo")
    };
    // Never begun; certainly not done; refused.
    let [never, not_done, refused] = ["o1", "o2", "o3"].map(|id| effects::<C>(&database, id));
    let busy = CallFailure::not_done("busy");
    failed(not_done.once(CHARGE, |key| provider.answers(key, Err::<(), _>(busy))).await);
    let no = CallFailure::refused("no");
    failed(refused.once(CHARGE, |key| provider.answers(key, Err::<(), _>(no))).await);
    for (effects, why) in [
        (&never, Compensated::CalledOff),
        (&not_done, Compensated::CalledOff),
        (&refused, Compensated::Refused),
    ] {
        // A handler that runs again goes the way it went.
        assert_eq!([nothing(effects).await, nothing(effects).await], [why, why]);
        let error = failed(effects.once(CHARGE, |key| provider.answers(key, Ok(()))).await);
        assert!(matches!(error, EffectError::Refused { .. }), "{error}");
    }
    assert_eq!(provider.count(), 2);
    assert!(all(&mut C::connection(&database)).iter().all(|row| row.effect == CHARGE));
}

async fn what_may_have_been_performed_is_not_undone_before_it_is_known<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let [unknown, under_way] = ["o1", "o2"].map(|id| effects::<C>(&database, id));
    lose(&unknown, &provider, Policy::Review).await;
    die(&under_way, Policy::Review).await;
    for (effects, expected) in [(&unknown, State::Unknown), (&under_way, State::Attempted)] {
        let effect = effects.effect(CHARGE);
        let undone = effect.compensate(|key, _: u32| provider.answers(key, Ok(())));
        let error = failed(undone.await);
        let EffectError::NotKnown { state, .. } = error else { panic!("{error}") };
        assert_eq!(state, expected);
    }
    assert_eq!(provider.count(), 1);
}

async fn another_message_undoes_what_its_own_operation_did<C: Store>() {
    let recorded = Recorded::install();
    let (database, provider) = (C::database(), Provider::default());
    let consumer = format!("undoing-{}", C::NAME);
    let placed = of_consumer::<C>(&database, &consumer, "o1");
    let charged = placed.once(CHARGE, |key| provider.answers(key, Ok(7_u32)));
    assert_eq!(charged.await.expect("charged"), 7);
    // What the handler of the cancellation has at hand are the effects of its own operation.
    let cancelled = placed.of(&OperationKey::new("order.cancelled", "o1").expect("valid"));
    let undo = async |effects: &Effects| {
        let effect = effects.effect(CHARGE);
        let undone = effect.compensate(|key, charged: u32| provider.answers(key, Ok(charged)));
        undone.await.expect("is known")
    };
    let called_off = format!("{EFFECTS} consumer={consumer},ending=called_off");
    assert_eq!(undo(&cancelled).await, Compensated::CalledOff);
    assert_eq!(undo(&cancelled).await, Compensated::CalledOff);
    assert_eq!((recorded.counter(&called_off), provider.count()), (Some(2), 1));
    assert_eq!(undo(&cancelled.of(&operation("o1"))).await.undone(), Some(7));
    assert_eq!((recorded.counter(&called_off), provider.count()), (Some(2), 2));
}

async fn what_was_refused_and_reported_done_since_is_for_a_person<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    let conn = &mut C::connection(&database);
    let order = Order::new("anna@desk", "asked the bank");
    let brought = overtaken::<C>(&database, &effects, Ok(7), async || {
        let conn = &mut C::connection(&database);
        let number = only(conn).id;
        decide(conn, number, &Decision::Failed, &order).expect("decides");
    });
    assert!(matches!(failed(brought.await), EffectError::Refused { .. }));
    let undo = async || {
        let effect = effects.effect(CHARGE);
        effect.compensate(|key, charged: u32| provider.answers(key, Ok(charged))).await
    };
    let error = failed(undo().await);
    assert!(matches!(error, EffectError::NotKnown { state: State::Failed, .. }), "{error}");
    // Whoever knows what came late may overrule it, either way.
    let number = only(conn).id;
    decide(conn, number, &Decision::Failed, &order).expect("decides");
    assert_eq!(undo().await.expect("is known"), Compensated::Refused);
    let performed = Decision::Done(Some("7".to_owned()));
    decide(conn, number, &performed, &order).expect("decides");
    assert_eq!(undo().await.expect("is known"), Compensated::Undone(7));
    assert_eq!(provider.count(), 1);
}
