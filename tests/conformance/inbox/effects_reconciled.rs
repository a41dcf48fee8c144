//! Whoever looks after effects that nobody is at, and what an operator decides.

use std::time::Duration;

use inbox::effect::admin::{self, AdminError, Decision, Order, Selection, decide};
use inbox::effect::{Answer, Policy, Reconciled, Reconciler, Settings, State};
use support::database::Database;
use support::effects::{CHARGE, Provider, all, die, effects, failed, lose, lost, only, pass};
use support::http::Shopping;
use support::inbox::{BILLING, Store};

use super::on_both;

on_both!(
    what_its_process_left_behind_is_found_and_treated_by_its_policy,
    a_provider_is_asked_and_its_answer_is_written_down,
    only_effects_that_somebody_can_ask_about_are_taken,
    what_nobody_can_answer_for_too_long_is_for_a_person,
    one_round_takes_no_more_than_it_may,
    a_person_decides_and_it_is_recorded,
    what_is_not_open_is_not_decided,
    what_a_person_has_said_is_done_can_be_corrected,
    of_two_who_asked_the_one_who_heard_done_is_believed,
    effects_go_with_their_operation_and_open_ones_never,
);

const HOUR: Duration = Duration::from_secs(3600);

fn reconciler<C: Store>(database: &Database) -> Reconciler {
    Reconciler::new(C::pool(database), BILLING, Settings::default())
        .expect("settings that can work")
}

async fn what_its_process_left_behind_is_found_and_treated_by_its_policy<C: Store>() {
    let database = C::database();
    for (id, policy) in [("o1", Policy::RepeatSafe), ("o2", Policy::Ask), ("o3", Policy::Review)] {
        die(&effects::<C>(&database, id), policy).await;
    }
    let reconciler = reconciler::<C>(&database);
    assert_eq!(reconciler.round().await.expect("looks"), Reconciled::default());
    let conn = &mut C::connection(&database);
    pass(conn, HOUR);
    let mut expected = Reconciled::default();
    (expected.lapsed, expected.reviewed) = (3, 1);
    assert_eq!(reconciler.round().await.expect("looks"), expected);
    assert_eq!(reconciler.round().await.expect("looks"), Reconciled::default());
    let rows: Vec<_> = all(conn)
        .iter()
        .map(|row| (row.state, row.ask_at.is_some(), row.review_since.is_some()))
        .collect();
    let unknown = State::Unknown;
    assert_eq!(rows, [(unknown, false, false), (unknown, true, false), (unknown, false, true)]);
}

async fn a_provider_is_asked_and_its_answer_is_written_down<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let ids = ["done", "not-done", "unknown", "broken"];
    for id in ids {
        lose(&effects::<C>(&database, id), &provider, Policy::Ask).await;
    }
    let reconciler = reconciler::<C>(&database).ask(CHARGE, async |question| {
        assert_eq!((question.effect.as_str(), question.asks), (CHARGE, 1));
        match question.operation.id() {
            "done" => Ok(Answer::Done(7)),
            "not-done" => Ok(Answer::NotDone),
            "unknown" => Ok(Answer::StillUnknown),
            _ => Err("away".into()),
        }
    });
    // Not while a request may still be on its way.
    assert_eq!(reconciler.round().await.expect("looks"), Reconciled::default());
    let conn = &mut C::connection(&database);
    pass(conn, Duration::from_secs(60));
    let mut expected = Reconciled::default();
    (expected.done, expected.not_done, expected.still_unknown) = (1, 1, 2);
    assert_eq!(reconciler.round().await.expect("asks"), expected);
    let states: Vec<_> = all(conn).iter().map(|row| row.state).collect();
    assert_eq!(states, [State::Done, State::Intended, State::Unknown, State::Unknown]);
    assert!(all(conn)[2].ask_at.is_some());
    // Not again before its pause is over.
    assert_eq!(reconciler.round().await.expect("looks"), Reconciled::default());
    let stored = effects::<C>(&database, "done");
    let stored = stored.once(CHARGE, |key| provider.answers(key, Ok(1)));
    assert_eq!((stored.await.expect("stored"), provider.count()), (7, 4));
    let called = effects::<C>(&database, "not-done");
    let called = called.once(CHARGE, |key| provider.answers(key, Ok(1)));
    assert_eq!((called.await.expect("called"), provider.count()), (1, 5));
}

async fn only_effects_that_somebody_can_ask_about_are_taken<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    lose(&effects::<C>(&database, "o1"), &provider, Policy::Ask).await;
    let conn = &mut C::connection(&database);
    pass(conn, HOUR);
    let others = reconciler::<C>(&database).ask("email", async |_| Ok(Answer::Done(())));
    assert_eq!(others.round().await.expect("looks"), Reconciled::default());
    assert_eq!((only(conn).state, only(conn).asks), (State::Unknown, 0));
    let any = reconciler::<C>(&database).ask_any(async |_| Ok(Answer::Done(3)));
    assert_eq!(any.round().await.expect("asks").done, 1);
    assert_eq!(only(conn).result.as_deref(), Some("3"));
}

async fn what_nobody_can_answer_for_too_long_is_for_a_person<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    lose(&effects::<C>(&database, "o1"), &provider, Policy::Ask).await;
    let conn = &mut C::connection(&database);
    pass(conn, 23 * HOUR);
    let nobody = reconciler::<C>(&database);
    assert_eq!(nobody.round().await.expect("looks").reviewed, 0);
    pass(conn, 2 * HOUR);
    assert_eq!(nobody.round().await.expect("looks").reviewed, 1);
    assert!(only(conn).review_since.is_some() && only(conn).ask_at.is_none());
    let which = Selection::default();
    assert_eq!(admin::list(conn, &which).expect("reads").len(), 1);
}

async fn one_round_takes_no_more_than_it_may<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    for id in ["o1", "o2", "o3"] {
        lose(&effects::<C>(&database, id), &provider, Policy::Ask).await;
    }
    pass(&mut C::connection(&database), HOUR);
    let mut settings = Settings::default();
    settings.batch = 2;
    let reconciler = Reconciler::new(C::pool(&database), BILLING, settings)
        .expect("settings that can work")
        .ask_any(async |_| Ok(Answer::Done(1)));
    let mut rounds = Vec::new();
    for _ in 0..3 {
        rounds.push(reconciler.round().await.expect("asks").done);
    }
    assert_eq!(rounds, [2, 1, 0]);
}

async fn a_person_decides_and_it_is_recorded<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let conn = &mut C::connection(&database);
    let order = Order::new("anna@desk", "asked the bank");
    for (id, decision, action) in [
        ("o1", Decision::Done(Some("7".to_owned())), "effect.done"),
        ("o2", Decision::NotDone, "effect.not_done"),
        ("o3", Decision::Failed, "effect.failed"),
    ] {
        let effects = effects::<C>(&database, id);
        lose(&effects, &provider, Policy::Review).await;
        let number = all(conn).pop().expect("stored").id;
        let dry = Order { dry_run: true, ..order.clone() };
        assert_eq!(decide(conn, number, &decision, &dry).expect("would"), State::Unknown);
        assert!(all(conn).pop().expect("stored").review_since.is_some());
        assert_eq!(decide(conn, number, &decision, &order).expect("decides"), State::Unknown);
        let row = admin::show(conn, number).expect("reads").expect("stored");
        let decided = ("anna@desk".to_owned(), "asked the bank".to_owned());
        assert_eq!((row.decided, row.review_since), (Some(decided), None));
        let line = inbox::admin::audit(conn, 1).expect("reads").pop().expect("recorded");
        assert_eq!((line.action.as_str(), line.actor.as_str()), (action, "anna@desk"));
        assert_eq!((line.consumer.as_str(), line.reason.as_str()), ("billing", "asked the bank"));
        for part in ["\"unknown\"", &effects.key(CHARGE).to_string(), "\"charge\""] {
            assert!(line.detail.contains(part), "{part}: {}", line.detail);
        }
        let calls = provider.count();
        let brought = effects.once(CHARGE, |key| provider.answers(key, Ok(9))).await;
        match decision {
            Decision::Done(_) => {
                assert_eq!((brought.expect("decided"), provider.count()), (7, calls))
            }
            Decision::NotDone => {
                assert_eq!((brought.expect("called"), provider.count()), (9, calls + 1));
            }
            Decision::Failed => {
                let error = failed(brought);
                assert!(error.to_string().contains("asked the bank"), "{error}");
                // A refusal that was a mistake.
                decide(conn, number, &Decision::NotDone, &order).expect("decides");
                let brought = effects.once(CHARGE, |key| provider.answers(key, Ok(9))).await;
                assert_eq!(brought.expect("called"), 9);
            }
        }
    }
    assert_eq!(inbox::admin::audit(conn, 10).expect("reads").len(), 4);
}

async fn what_is_not_open_is_not_decided<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let conn = &mut C::connection(&database);
    let order = Order::new("anna@desk", "asked the bank");
    let unknown = decide(conn, 4711, &Decision::NotDone, &order).expect_err("no such effect");
    assert!(matches!(unknown, AdminError::UnknownEffect { id: 4711 }), "{unknown}");
    let done = effects::<C>(&database, "o1");
    done.once(CHARGE, |key| provider.answers(key, Ok(1))).await.expect("charged");
    // A call that may be under way.
    die(&effects::<C>(&database, "o2"), Policy::Review).await;
    for row in all(conn) {
        let error = decide(conn, row.id, &Decision::NotDone, &order).expect_err("is not open");
        assert!(matches!(error, AdminError::EffectNotOpen { .. }), "{error}");
    }
    pass(conn, HOUR);
    let number = all(conn).pop().expect("stored").id;
    let unusable = Decision::Done(Some("{".to_owned()));
    let error = decide(conn, number, &unusable, &order).expect_err("no JSON");
    assert!(error.to_string().contains("no JSON"), "{error}");
    let nobody = decide(conn, number, &Decision::NotDone, &Order::new("", "r"));
    assert!(matches!(nobody, Err(AdminError::Unusable { field: "actor", .. })));
    assert_eq!(inbox::admin::audit(conn, 10).expect("reads"), []);
    let was = decide(conn, number, &Decision::NotDone, &order).expect("its lease is over");
    assert_eq!(was, State::Attempted);
}

async fn what_a_person_has_said_is_done_can_be_corrected<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let conn = &mut C::connection(&database);
    let order = Order::new("anna@desk", "asked the bank");
    let effects = effects::<C>(&database, "o1");
    lose(&effects, &provider, Policy::Review).await;
    let number = only(conn).id;
    let said = |json: &str| Decision::Done(Some(json.to_owned()));
    decide(conn, number, &said("\"ch_1\""), &order).expect("decides");
    let unreadable = failed(effects.once(CHARGE, |key| provider.answers(key, Ok(1))).await);
    assert!(matches!(unreadable, inbox::effect::EffectError::Unreadable { .. }), "{unreadable}");
    for other in [Decision::NotDone, Decision::Failed] {
        let error = decide(conn, number, &other, &order).expect_err("it was performed");
        assert!(matches!(error, AdminError::EffectNotOpen { .. }), "{error}");
    }
    decide(conn, number, &said("5"), &order).expect("corrects it");
    let corrected = effects.once(CHARGE, |key| provider.answers(key, Ok(1)));
    assert_eq!(corrected.await.expect("stored"), 5);
    assert_eq!(provider.count(), 1);
    // What the provider has said is nobody's to change.
    let told = support::effects::effects::<C>(&database, "o2");
    told.once(CHARGE, |key| provider.answers(key, Ok(1))).await.expect("charged");
    let number = all(conn).pop().expect("stored").id;
    let error = decide(conn, number, &said("5"), &order).expect_err("the provider has said it");
    assert!(matches!(error, AdminError::EffectNotOpen { .. }), "{error}");
}

async fn of_two_who_asked_the_one_who_heard_done_is_believed<C: Store>() {
    let (database, provider) = (C::database(), Provider::default());
    let effects = effects::<C>(&database, "o1");
    lose(&effects, &provider, Policy::Ask).await;
    pass(&mut C::connection(&database), HOUR);
    let effect = effects.effect(CHARGE).ask(async |_| {
        // Its question takes longer than it has, and somebody else asks, too.
        pass(&mut C::connection(&database), HOUR);
        let other = reconciler::<C>(&database).ask(CHARGE, async |_| Ok(Answer::<u32>::NotDone));
        assert_eq!(other.round().await.expect("asks").not_done, 1);
        Ok(Answer::Done(5))
    });
    let brought = effect.once(|key| provider.answers(key, Ok(1))).await;
    assert_eq!((brought.expect("done"), provider.count()), (5, 1));
}

async fn effects_go_with_their_operation_and_open_ones_never<C: Shopping>() {
    let (database, provider) = (C::database(), Provider::default());
    let conn = &mut C::connection(&database);
    for (id, answer) in [
        ("done", Ok(1)),
        ("applied", Ok(1)),
        ("parked", Ok(1)),
        ("refused-late", Err(inbox::effect::CallFailure::refused("no"))),
        ("decided", Err(lost())),
        ("sent-back", Err(lost())),
        ("answered", Ok(1)),
        ("refused", Err(inbox::effect::CallFailure::refused("no"))),
        ("not-done", Err(inbox::effect::CallFailure::not_done("busy"))),
        ("unknown", Err(lost())),
    ] {
        let effects = effects::<C>(&database, id);
        let _ = effects.once(CHARGE, |key| provider.answers(key, answer)).await;
    }
    die(&effects::<C>(&database, "under-way"), Policy::Review).await;
    pass(conn, 365 * 24 * HOUR);
    // An attempt has said since that it was done.
    let late = "UPDATE inbox_effects SET late_at = created_at WHERE operation = 'refused-late'";
    assert_eq!(C::execute(conn, late), Ok(1));
    // The provider has answered today, after all this time; and so has a person. Whoever waits may not have come yet.
    let now = if C::NAME == "postgres" {
        "clock_timestamp()"
    } else {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
    let answered = "UPDATE inbox_effects SET settled_at =";
    let answered = format!("{answered} {now} WHERE operation = 'answered'");
    assert_eq!(C::execute(conn, &answered), Ok(1));
    for (operation, decision) in
        [("decided", Decision::Done(Some("1".to_owned()))), ("sent-back", Decision::NotDone)]
    {
        let open = all(conn).into_iter().find(|row| row.operation == operation).expect("unknown");
        decide(conn, open.id, &decision, &Order::new("anna@desk", "asked the bank"))
            .expect("decides");
    }
    // Done today, and its operation has failed since.
    let effects = effects::<C>(&database, "young");
    let _ = effects.once(CHARGE, |key| provider.answers(key, Ok(1))).await;
    // Its message can still be tried again.
    let (scope, empty) =
        (all(conn)[0].scope.clone(), if C::NAME == "postgres" { "''" } else { "x''" });
    let parked = format!(
        "INSERT INTO inbox_parked (consumer, reason, detail, attempts, digest, scope, operation, exchange, routing_key,
                                   headers, payload)
         VALUES ('billing', 'rejected', '', 1, {empty}, '{scope}', 'parked', '', '', '{{}}', {empty})"
    );
    assert_eq!(C::execute(conn, &parked), Ok(1));
    // Its operation was applied today, and is kept.
    let (applied, content) =
        (support::effects::operation("applied"), message::Fingerprint::of_bytes(&[]));
    let once = conn.write(|tx| {
        inbox::once(tx, BILLING, &applied, &content, |_| Ok::<_, diesel::result::Error>(()))
    });
    assert!(matches!(once, Ok(inbox::Outcome::Applied(()))));
    let retention = inbox::retention::Retention::default();
    let purged = inbox::retention::purge(conn, BILLING, &retention, &mut Default::default());
    assert_eq!(purged.expect("purges").effects, 3);
    let left: Vec<_> = all(conn).into_iter().map(|row| row.operation).collect();
    assert_eq!(
        left,
        [
            "applied",
            "parked",
            "refused-late",
            "decided",
            "sent-back",
            "answered",
            "unknown",
            "under-way",
            "young",
        ]
    );
}
