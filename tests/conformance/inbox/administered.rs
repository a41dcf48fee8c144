//! What an operator sees of parked messages, and what becomes of a decision about them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use inbox::admin::{self, AdminError, Changed, Order, Selection};
use inbox::{
    Builder, Context, Ending, Failure, Handler, Inbox, OnReplay, ParkedState, Reason, ReplaySafe,
    Settings,
};
use message::Message;
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Running, Store, parked};
use tokio::sync::Semaphore;

use super::administered_keys::{ordered, with_a_key_blocked};
use super::on_both;

on_both!(
    parked_messages_are_found_counted_and_shown_whole,
    a_retry_is_made_at_once_with_every_attempt_spent_and_recorded,
    a_decision_fences_the_retry_that_is_under_way,
    a_failure_of_the_retry_under_way_does_not_undo_a_decision,
    an_order_over_many_is_bounded_and_leaves_alone_what_waits_behind,
    a_dry_run_changes_nothing_and_an_order_says_who_and_why,
);

const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn order() -> Order {
    Order::new("anna@desk", "the account is open now")
}

pub(super) fn quick() -> Settings {
    let mut settings = Settings::default();
    settings.retry_poll = Duration::from_millis(20);
    settings
}

pub(super) fn payment(key: &str, payment: &str) -> Message {
    let mut message = Payment { account: key.to_owned(), ..Payment::new(payment, 1) }.message();
    message.ordering_key = Some(key.to_owned());
    message
}

/// Credits, unless `decide` says otherwise.
pub(super) fn deciding<C: Store>(
    database: &support::database::Database,
    feed: &Feed,
    decide: impl Fn(&Payment, &Context<'_>) -> Result<(), Failure> + Send + Sync + 'static,
) -> Builder<C> {
    Inbox::new(BILLING, C::pool(database), Arc::new(feed.clone()), "q")
        .on(ReplaySafe, move |tx: &mut C, payment: &Payment, context: &Context<'_>| {
            decide(payment, context)?;
            C::credit(tx, &payment.account, payment.cents)?;
            Ok(())
        })
        .settings(quick())
}

/// Parks `odd` for a person and `late` for an hour.
async fn with_two_parked<C: Store>(database: &support::database::Database) {
    let feed = Feed::new();
    let mut running = Running::start(deciding::<C>(database, &feed, |payment, _| {
        match payment.payment.as_str() {
            "odd" => Err(Failure::review("twice the usual amount")),
            _ => Err(Failure::retry_after(HOUR, "closed")),
        }
    }));
    for message in [payment("a", "odd"), payment("b", "late")] {
        feed.deliver(&message);
        running.next().await;
    }
    running.stop().await;
}

async fn parked_messages_are_found_counted_and_shown_whole<C: Store>() {
    let database = C::database();
    with_two_parked::<C>(&database).await;
    let conn = &mut C::connection(&database);
    let mut found = |change: fn(&mut Selection)| {
        let mut which = Selection::default();
        change(&mut which);
        let found = admin::list(conn, &which).expect("lists");
        found.into_iter().map(|parked| parked.operation.expect("known").1).collect::<Vec<_>>()
    };
    assert_eq!(found(|_| {}), ["odd", "late"]);
    assert_eq!(found(|which| which.state = Some(ParkedState::Review)), ["odd"]);
    assert_eq!(found(|which| which.reason = Some(Reason::Failed)), ["late"]);
    assert_eq!(found(|which| which.key = Some("b".to_owned())), ["late"]);
    assert_eq!(found(|which| which.consumer = Some("billing".to_owned())), ["odd", "late"]);
    assert_eq!(found(|which| which.consumer = Some("another".to_owned())), [""; 0]);
    assert_eq!(found(|which| which.limit = 1), ["odd"]);
    assert_eq!(found(|which| which.ids = Some(vec![])), [""; 0]);

    let all = admin::list(conn, &Selection::default()).expect("lists");
    let [odd, late] = &all[..] else { panic!("{all:?}") };
    let after = Selection { after: odd.id, ..Selection::default() };
    assert_eq!(admin::list(conn, &after).expect("lists")[..], *std::slice::from_ref(late));
    assert_eq!((odd.consumer.as_str(), odd.attempts, odd.starts), ("billing", 1, 0));
    assert_eq!((odd.not_before, odd.under_way, late.under_way), (None, false, false));
    assert!(late.not_before.is_some_and(|due| due > late.parked_at));

    let message = admin::show(conn, odd.id).expect("reads").expect("there");
    assert_eq!(&message.info, odd);
    let whole = inbox::parked(conn, BILLING, 0, 1).expect("reads").remove(0);
    assert_eq!(odd.bytes, whole.payload.len() as i64);
    assert_eq!((message.headers, message.payload), (whole.headers, whole.payload));
    assert_eq!(admin::show(conn, 4711).expect("reads"), None);

    let counts = admin::counts(conn, None).expect("counts");
    let seen: Vec<_> =
        counts.iter().map(|group| (group.state, group.reason, group.count)).collect();
    assert_eq!(
        seen,
        [(ParkedState::Retry, Reason::Failed, 1), (ParkedState::Review, Reason::Review, 1)]
    );
    assert_eq!(admin::counts(conn, Some("another")).expect("counts"), []);
}

async fn a_retry_is_made_at_once_with_every_attempt_spent_and_recorded<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let mut settings = quick();
    settings.max_attempts = 1;
    let builder = deciding::<C>(&database, &feed, |_, context| {
        if context.attempt() < 3 { Err(Failure::retry("no such account")) } else { Ok(()) }
    });
    let mut running = Running::start(builder.settings(settings));
    let message = Payment::new("p1", 7).message();
    feed.deliver(&message);
    assert_eq!(running.next().await.ending, parked(Reason::Exhausted));
    let conn = &mut C::connection(&database);
    let id = C::parked(conn)[0].id;
    // One run more, and one more.
    admin::retry(conn, id, &order()).expect("retries");
    let told = running.next().await;
    assert_eq!((told.ending, told.attempts), (parked(Reason::Exhausted), 2));
    admin::retry(conn, id, &order()).expect("retries");
    let told = running.next().await;
    assert_eq!((told.ending, told.attempts), (Ending::Applied, 3));
    assert_eq!((C::credits(conn, "a"), C::parked(conn)), (vec![7], vec![]));
    running.stop().await;

    let gone = admin::retry(conn, id, &order()).expect_err("applied");
    assert!(matches!(gone, AdminError::UnknownMessage { id: named } if named == id));
    let audit = admin::audit(conn, 10).expect("reads");
    let [second, first] = &audit[..] else { panic!("{audit:?}") };
    assert!(second.at >= first.at && second.id > first.id);
    for (entry, attempts) in [(first, 1), (second, 2)] {
        assert_eq!((entry.actor.as_str(), entry.action.as_str()), ("anna@desk", "parked.retry"));
        assert_eq!(entry.consumer, "billing");
        assert_eq!(entry.reason, "the account is open now");
        let detail: serde_json::Value = serde_json::from_str(&entry.detail).expect("JSON");
        let digest = detail["digest"].as_str().expect("a text");
        assert!(digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit()), "{digest}");
        let expected = serde_json::json!({
            "id": id, "state": "review", "parked_for": "exhausted", "attempts": attempts,
            "message_id": message.id.to_string(), "kind": "payment.succeeded",
            "scope": "payment.succeeded", "operation": "p1", "ordering_key": null, "digest": digest,
        });
        assert_eq!(detail, expected, "and no payload");
    }
}

/// Waits outside the transaction, the first time only: on SQLite nobody could decide during one.
struct Stopping {
    entered: Arc<Semaphore>,
    go: Arc<Semaphore>,
    runs: AtomicU32,
}

impl<C: Store> Handler<C> for Stopping {
    const ON_REPLAY: OnReplay = ReplaySafe;
    type Event = Payment;
    type Prepared = ();
    type Receipt = ();

    async fn prepare(&self, _: &Payment, _: &Context<'_>) -> Result<(), Failure> {
        if self.runs.fetch_add(1, Ordering::SeqCst) == 0 {
            self.entered.add_permits(1);
            self.go.acquire().await?.forget();
        }
        Ok(())
    }

    fn apply(
        &self,
        tx: &mut C,
        payment: &Payment,
        (): &(),
        _: &Context<'_>,
    ) -> Result<(), Failure> {
        Ok(C::credit(tx, &payment.account, payment.cents)?)
    }
}

async fn a_decision_fences_the_retry_that_is_under_way<C: Store>() {
    for discards in [true, false] {
        let (database, feed) = (C::database(), Feed::new());
        let first =
            deciding::<C>(&database, &feed, |_, _| Err(Failure::retry_after(HOUR, "later")));
        let mut running = Running::start(first);
        feed.deliver(&Payment::new("p1", 7).message());
        assert_eq!(running.next().await.ending, parked(Reason::Failed));
        running.stop().await;

        let (entered, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let stopping = Stopping { entered: entered.clone(), go: go.clone(), runs: 0.into() };
        let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(Feed::new()), "q")
            .handler(stopping)
            .settings(quick());
        let mut running = Running::start(builder);
        let conn = &mut C::connection(&database);
        inbox::testing::pass_time(conn, BILLING, HOUR).expect("passes");
        entered.acquire().await.expect("open").forget();
        let found = admin::list(conn, &Selection::default()).expect("lists").remove(0);
        assert!(found.under_way && found.starts == 1, "{found:?}");
        if discards {
            admin::discard(conn, found.id, &order()).expect("discards");
        } else {
            admin::retry(conn, found.id, &order()).expect("retries");
            assert_eq!(running.next().await.ending, Ending::Applied, "the second run");
        }
        go.add_permits(1);
        // Where the second run has applied it, the first finds the operation there, and no parked row.
        assert_eq!(running.next().await.ending, Ending::Overtaken, "the first run");
        let applied = if discards { vec![] } else { vec![7] };
        assert_eq!((C::credits(conn, "a"), C::parked(conn)), (applied, vec![]));
        assert_eq!(running.stop().await, []);
    }
}

async fn a_failure_of_the_retry_under_way_does_not_undo_a_decision<C: Store>() {
    let database = C::database();
    with_two_parked::<C>(&database).await;
    let conn = &mut C::connection(&database);
    inbox::testing::pass_time(conn, BILLING, HOUR).expect("passes");
    let (entered, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let stopping = Stopping { entered: entered.clone(), go: go.clone(), runs: 0.into() };
    let mut settings = quick();
    // Only what is due at the start is tried: the decision itself is not taken up here.
    settings.retry_poll = HOUR;
    let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(Feed::new()), "q")
        .handler(stopping)
        .settings(settings);
    let mut running = Running::start(builder);
    entered.acquire().await.expect("open").forget();
    let retry = Selection { state: Some(ParkedState::Retry), ..Selection::default() };
    let late = admin::list(conn, &retry).expect("lists").remove(0);
    admin::retry(conn, late.id, &order()).expect("retries");
    // The handler fails, and would have the message wait.
    go.close();
    assert_eq!(running.next().await.ending, Ending::Overtaken);
    let after = admin::list(conn, &retry).expect("lists").remove(0);
    assert_eq!((after.attempts, after.starts, after.under_way), (late.attempts, 0, false));
    assert!(after.not_before < late.not_before, "due since the decision");
    assert_eq!(running.stop().await, []);
}

async fn an_order_over_many_is_bounded_and_leaves_alone_what_waits_behind<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let (mut running, _, _) = ordered::<C>(&database, &feed);
    with_a_key_blocked::<C>(&database, &mut running, &feed).await;
    for number in 0..4 {
        feed.deliver(&payment(&format!("k{number}"), "a1"));
        running.next().await;
    }
    running.stop().await;
    let conn = &mut C::connection(&database);
    let review = |rows: &[admin::ParkedInfo]| {
        rows.iter().filter(|row| row.state == ParkedState::Review).count()
    };
    let mut which =
        Selection { consumer: Some("billing".into()), limit: 4, ..Selection::default() };
    let changed = admin::retry_all(conn, &which, &order()).expect("retries");
    assert_eq!(changed, Changed { changed: 2, behind: 2 }, "a1 and the first of the others");
    which.limit = 100;
    assert_eq!(review(&admin::list(conn, &which).expect("lists")), 3);
    which.key = Some("k3".into());
    let changed = admin::discard_all(conn, &which, &order()).expect("discards");
    assert_eq!(changed, Changed { changed: 1, behind: 0 });
    assert_eq!(admin::audit(conn, 100).expect("reads").len(), 3, "one line for each message");
}

async fn a_dry_run_changes_nothing_and_an_order_says_who_and_why<C: Store>() {
    let database = C::database();
    with_two_parked::<C>(&database).await;
    let conn = &mut C::connection(&database);
    let before = admin::list(conn, &Selection::default()).expect("lists");
    let dry = Order { dry_run: true, ..order() };
    let id = before[0].id;
    admin::retry(conn, id, &dry).expect("would");
    admin::discard(conn, id, &dry).expect("would");
    let all = Selection::default();
    assert_eq!(admin::retry_all(conn, &all, &dry).expect("would").changed, 2);
    assert_eq!(admin::discard_all(conn, &all, &dry).expect("would").changed, 2);
    for (actor, reason) in [("", "why"), ("anna", " ")] {
        let error = admin::discard(conn, id, &Order::new(actor, reason)).expect_err("refused");
        assert!(matches!(error, AdminError::Unusable { .. }), "{error}");
    }
    assert_eq!(admin::list(conn, &all).expect("lists"), before);
    assert_eq!(admin::audit(conn, 10).expect("reads"), []);
}
