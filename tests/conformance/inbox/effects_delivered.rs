//! Effects of messages: what a handler's retries get, and when the message of an unknown effect comes again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inbox::effect::admin::{Decision, Order, decide};
use inbox::effect::{Answer, CallFailure, Compensated, Policy, State};
use inbox::{
    Builder, Context, Ending, Failure, Handler, Inbox, OnReplay, ParkedState, Reason, Settings,
    rebuild,
};
use support::database::Database;
use support::effects::{CHARGE, Provider, all, lost, only, pass};
use support::feed::Feed;
use support::http::Shopping;
use support::inbox::{BILLING, Payment, Running, Store, parked};

use super::on_both;

on_both!(
    a_retry_gets_the_stored_result_instead_of_a_second_call,
    a_message_waits_for_the_decision_about_its_effect_and_goes_on_at_once,
    a_decision_reaches_the_message_of_a_rebuild_and_none_that_is_being_tried,
    a_reconciler_s_answer_lets_the_message_go_on,
    what_is_safe_to_repeat_is_retried_as_after_any_failure,
    what_the_provider_refuses_rejects_the_message,
    another_message_of_the_operation_asks_for_something_else,
    an_error_of_an_effect_is_found_below_the_handler_s_own,
    whichever_messages_undo_an_effect_it_is_undone_once,
);

const HOUR: Duration = Duration::from_secs(3600);

type Replies = Arc<Mutex<Vec<Result<u32, CallFailure>>>>;

/// Charges before it credits what the provider says.
struct Charging {
    provider: Provider,
    /// Taken from the end; 7 when they are used up.
    replies: Replies,
    policy: Policy,
    /// Runs of `apply` that fail.
    failures: AtomicU32,
    wrapped: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot charge")]
struct CannotCharge(#[source] inbox::effect::EffectError);

impl<C: Store> Handler<C> for Charging {
    const ON_REPLAY: OnReplay = OnReplay::SideEffects;
    type Event = Payment;
    type Prepared = u32;
    type Receipt = u32;

    async fn prepare(&self, _: &Payment, context: &Context<'_>) -> Result<u32, Failure> {
        let effects = context.effects();
        let effect = effects.effect(CHARGE);
        let effect = match self.policy {
            Policy::RepeatSafe => effect.repeat_safe(),
            Policy::Ask => effect.reconciled(),
            Policy::Review => effect.review(),
        };
        let reply = self.replies.lock().expect("no panic").pop();
        let charged = effect.once(|key| self.provider.answers(key, reply.unwrap_or(Ok(7)))).await;
        if self.wrapped {
            return Ok(charged.map_err(CannotCharge)?);
        }
        Ok(charged?)
    }

    fn apply(
        &self,
        tx: &mut C,
        payment: &Payment,
        cents: &u32,
        _: &Context<'_>,
    ) -> Result<u32, Failure> {
        C::credit(tx, &payment.account, i64::from(*cents))?;
        let less = |left: u32| left.checked_sub(1);
        match self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Err(Failure::retry("not yet")),
            Err(_) => Ok(*cents),
        }
    }
}

struct Scene {
    database: Database,
    feed: Feed,
    provider: Provider,
}

impl Scene {
    fn new<C: Store>() -> Self {
        Self { database: C::database(), feed: Feed::new(), provider: Provider::default() }
    }

    fn charging(&self, policy: Policy, replies: Vec<Result<u32, CallFailure>>) -> Charging {
        Charging {
            provider: self.provider.clone(),
            replies: Arc::new(Mutex::new(replies)),
            policy,
            failures: AtomicU32::new(0),
            wrapped: false,
        }
    }

    fn inbox<C: Store>(&self, charging: Charging) -> Builder<C> {
        let mut settings = Settings::default();
        settings.backoff = Duration::from_millis(1);
        settings.backoff_max = HOUR;
        settings.retry_poll = Duration::from_millis(20);
        settings.effects.poll = Duration::from_millis(20);
        Inbox::new(BILLING, C::pool(&self.database), Arc::new(self.feed.clone()), "q")
            .handler(charging)
            .settings(settings)
    }
}

async fn a_retry_gets_the_stored_result_instead_of_a_second_call<C: Store>() {
    let scene = Scene::new::<C>();
    let charging = scene.charging(Policy::Review, vec![]);
    charging.failures.store(2, Ordering::SeqCst);
    let mut running = Running::start(scene.inbox::<C>(charging));
    scene.feed.deliver(&Payment::new("p1", 7).message());
    let failed = parked(Reason::Failed);
    assert_eq!(running.by_attempts(3).await, [(failed, 1), (failed, 2), (Ending::Applied, 3)]);
    running.stop().await;
    let conn = &mut C::connection(&scene.database);
    assert_eq!((C::credits(conn, "a"), scene.provider.count()), (vec![7], 1));
    let row = only(conn);
    assert_eq!((row.scope.as_str(), row.operation.as_str()), ("payment.succeeded", "p1"));
}

async fn a_message_waits_for_the_decision_about_its_effect_and_goes_on_at_once<C: Store>() {
    let scene = Scene::new::<C>();
    let charging = scene.charging(Policy::Review, vec![Err(lost())]);
    let mut running = Running::start(scene.inbox::<C>(charging));
    scene.feed.deliver(&Payment::new("p1", 7).message());
    let waiting = running.next().await;
    assert_eq!((waiting.ending, waiting.attempts), (parked(Reason::Failed), 0));
    let conn = &mut C::connection(&scene.database);
    let row = C::parked(conn).pop().expect("parked");
    assert_eq!(row.state, ParkedState::Retry);
    assert!(row.detail.contains("relay effects decide"), "{}", row.detail);
    // It comes again, and waits again.
    pass(conn, HOUR);
    assert_eq!(running.next().await.attempts, 0);
    assert_eq!((scene.provider.count(), only(conn).state), (1, State::Unknown));
    // Nothing else could make it due: its time is in an hour.
    let done = Decision::Done(Some("5".to_owned()));
    let number = only(conn).id;
    decide(conn, number, &done, &Order::new("anna", "asked the bank")).expect("decides");
    let told = running.next().await;
    assert_eq!((told.ending, told.attempts), (Ending::Applied, 1));
    assert_eq!((C::credits(conn, "a"), scene.provider.count()), (vec![5], 1));
    running.stop().await;
}

async fn a_decision_reaches_the_message_of_a_rebuild_and_none_that_is_being_tried<C: Shopping>() {
    let scene = Scene::new::<C>();
    let charging = scene.charging(Policy::Review, vec![Err(lost()), Err(lost())]);
    let mut running = Running::start(scene.inbox::<C>(charging));
    for payment in ["p1", "p2"] {
        scene.feed.deliver(&Payment::new(payment, 7).message());
        assert_eq!(running.next().await.ending, parked(Reason::Failed));
    }
    running.stop().await;
    let conn = &mut C::connection(&scene.database);
    let by = rebuild::By { actor: "anna", reason: "new columns" };
    assert_eq!(rebuild::begin(conn, BILLING, by).expect("begins"), 2);
    for change in
        ["consumer = 'billing#2' WHERE operation = 'p1'", "starts = 1 WHERE operation = 'p2'"]
    {
        assert_eq!(C::execute(conn, &format!("UPDATE inbox_parked SET {change}")), Ok(1));
    }
    let now = if C::NAME == "postgres" { "clock_timestamp()" } else { "unixepoch('subsec') * 1e6" };
    let due = format!("inbox_parked WHERE not_before <= {now}");
    assert_eq!(C::count(conn, &due), 0);
    for row in all(conn) {
        let done = Decision::Done(Some("5".to_owned()));
        decide(conn, row.id, &done, &Order::new("anna", "asked the bank")).expect("decides");
    }
    assert_eq!(C::count(conn, &format!("{due} AND operation = 'p1'")), 1);
    assert_eq!(C::count(conn, &due), 1);
}

async fn a_reconciler_s_answer_lets_the_message_go_on<C: Store>() {
    for (answer, credited, calls) in [(Answer::Done(5), 5, 1), (Answer::NotDone, 7, 2)] {
        let scene = Scene::new::<C>();
        let charging = scene.charging(Policy::Ask, vec![Err(lost())]);
        let asked = answer.clone();
        let builder = scene.inbox::<C>(charging).reconcile(CHARGE, move |_| {
            let answer = asked.clone();
            async { Ok(answer) }
        });
        let mut settings = Settings::default();
        settings.retry_poll = Duration::from_millis(20);
        settings.effects.poll = Duration::from_millis(20);
        settings.effects.grace = Duration::from_millis(50);
        let mut running = Running::start(builder.settings(settings));
        scene.feed.deliver(&Payment::new("p1", 7).message());
        loop {
            let told = running.next().await;
            match told.ending {
                Ending::Applied => break assert_eq!(told.attempts, 1),
                waiting => assert_eq!((waiting, told.attempts), (parked(Reason::Failed), 0)),
            }
        }
        running.stop().await;
        let conn = &mut C::connection(&scene.database);
        assert_eq!((C::credits(conn, "a"), scene.provider.count()), (vec![credited], calls));
    }
}

async fn what_is_safe_to_repeat_is_retried_as_after_any_failure<C: Store>() {
    let scene = Scene::new::<C>();
    let charging = scene.charging(Policy::RepeatSafe, vec![Err(lost()), Err(lost())]);
    let mut running = Running::start(scene.inbox::<C>(charging));
    scene.feed.deliver(&Payment::new("p1", 7).message());
    let failed = parked(Reason::Failed);
    assert_eq!(running.by_attempts(3).await, [(failed, 1), (failed, 2), (Ending::Applied, 3)]);
    running.stop().await;
    let calls = scene.provider.calls();
    assert_eq!((calls.len(), calls[0], calls[1]), (3, calls[1], calls[2]));
}

async fn what_the_provider_refuses_rejects_the_message<C: Store>() {
    let scene = Scene::new::<C>();
    let no = CallFailure::refused("the card was declined");
    let mut running =
        Running::start(scene.inbox::<C>(scene.charging(Policy::Review, vec![Err(no)])));
    scene.feed.deliver(&Payment::new("p1", 7).message());
    assert_eq!(running.next().await.ending, parked(Reason::Rejected));
    let row = C::parked(&mut C::connection(&scene.database)).pop().expect("parked");
    assert!(row.detail.contains("the card was declined"), "{}", row.detail);
    running.stop().await;
}

async fn another_message_of_the_operation_asks_for_something_else<C: Store>() {
    let scene = Scene::new::<C>();
    let charging = scene.charging(Policy::Review, vec![Err(lost())]);
    let mut running = Running::start(scene.inbox::<C>(charging));
    scene.feed.deliver(&Payment::new("p1", 7).message());
    assert_eq!(running.next().await.ending, parked(Reason::Failed));
    scene.feed.deliver(&Payment::new("p1", 8).message());
    assert_eq!(running.next().await.ending, parked(Reason::Review));
    running.stop().await;
    assert_eq!(scene.provider.count(), 1);
}

async fn an_error_of_an_effect_is_found_below_the_handler_s_own<C: Store>() {
    let scene = Scene::new::<C>();
    let mut charging = scene.charging(Policy::Review, vec![Err(lost())]);
    charging.wrapped = true;
    let mut running = Running::start(scene.inbox::<C>(charging));
    scene.feed.deliver(&Payment::new("p1", 7).message());
    let told = running.next().await;
    assert_eq!((told.ending, told.attempts), (parked(Reason::Failed), 0));
    running.stop().await;
}

/// Payment `p1` is charged; every other one undoes that.
struct Undoing {
    provider: Provider,
    voids: Provider,
    /// Of the undoing; taken from the end, and then it is done.
    replies: Mutex<Vec<CallFailure>>,
}

impl<C: Store> Handler<C> for Undoing {
    const ON_REPLAY: OnReplay = OnReplay::SideEffects;
    type Event = Payment;
    type Prepared = ();
    type Receipt = ();

    async fn prepare(&self, payment: &Payment, context: &Context<'_>) -> Result<(), Failure> {
        let effects = context.effects();
        if payment.payment == "p1" {
            return Ok(effects.once(CHARGE, |key| self.provider.answers(key, Ok(()))).await?);
        }
        let effects = effects.of(&Payment::key("p1"));
        let reply = self.replies.lock().expect("no panic").pop().map_or(Ok(()), Err);
        let undone =
            effects.effect(CHARGE).compensate(|key, (): ()| self.voids.answers(key, reply));
        assert_eq!(undone.await?, Compensated::Undone(()));
        Ok(())
    }

    fn apply(&self, _: &mut C, _: &Payment, (): &(), _: &Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

async fn whichever_messages_undo_an_effect_it_is_undone_once<C: Shopping>() {
    let scene = Scene::new::<C>();
    let voids = Provider::default();
    let undoing = Undoing {
        provider: scene.provider.clone(),
        voids: voids.clone(),
        replies: Mutex::new(vec![lost()]),
    };
    let mut settings = Settings::default();
    settings.backoff_max = HOUR;
    settings.retry_poll = Duration::from_millis(20);
    let builder = Inbox::new(BILLING, C::pool(&scene.database), Arc::new(scene.feed.clone()), "q");
    let mut running = Running::start(builder.handler(undoing).settings(settings));
    let deliver = |payment, cents| scene.feed.deliver(&Payment::new(payment, cents).message());
    deliver("p1", 1);
    assert_eq!(running.next().await.ending, Ending::Applied);
    deliver("p2", 2);
    assert_eq!(running.next().await.ending, parked(Reason::Failed));
    let conn = &mut C::connection(&scene.database);
    // What is decided wakes the messages of `p1`, and this one waits: it looks by itself, long before an hour is over.
    let soon = if C::NAME == "postgres" {
        "clock_timestamp() + interval '2 minutes'"
    } else {
        "(unixepoch('subsec') + 120) * 1e6"
    };
    assert_eq!(C::count(conn, &format!("inbox_parked WHERE not_before < {soon}")), 1);
    let number = all(conn).into_iter().find(|row| row.state == State::Unknown).expect("open").id;
    let order = Order::new("anna", "asked the bank");
    decide(conn, number, &Decision::Done(None), &order).expect("decides");
    pass(conn, Duration::from_secs(120));
    assert_eq!(running.next().await.ending, Ending::Applied);
    deliver("p3", 3);
    assert_eq!(running.next().await.ending, Ending::Applied);
    running.stop().await;
    assert_eq!((scene.provider.count(), voids.count()), (1, 1));
}
