//! A replay of what a consumer with side effects has handled, or has not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use inbox::admin::{self, Order};
use inbox::{Builder, Context, Ending, Failure, Handler, Inbox, OnReplay, Reason};
use message::{Message, name};
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Running, Store, parked};

use super::on_both;

on_both!(
    a_replay_reaches_no_handler_with_side_effects_before_a_person_says_so,
    a_replay_that_was_forced_for_this_consumer_runs,
    a_replay_that_was_forced_for_another_consumer_does_not_run,
    a_replay_reaches_a_handler_without_side_effects,
);

/// Says for both of its parts how often they ran.
#[derive(Clone, Default)]
struct Mailing {
    prepared: Arc<AtomicU32>,
    applied: Arc<AtomicU32>,
}

impl Mailing {
    fn runs(&self) -> (u32, u32) {
        (self.prepared.load(Ordering::SeqCst), self.applied.load(Ordering::SeqCst))
    }
}

impl<C: Store> Handler<C> for Mailing {
    const ON_REPLAY: OnReplay = OnReplay::SideEffects;
    type Event = Payment;
    type Prepared = ();
    type Receipt = ();

    async fn prepare(&self, _: &Payment, _: &Context<'_>) -> Result<(), Failure> {
        self.prepared.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn apply(&self, _: &mut C, _: &Payment, (): &(), _: &Context<'_>) -> Result<(), Failure> {
        self.applied.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// As the relay sends a part of the log again.
fn replayed(payment: &str, forced: Option<&str>) -> Message {
    let mut message = Payment::new(payment, 7).message();
    message.headers.insert(name::REPLAY, "4");
    if let Some(consumer) = forced {
        message.headers.insert(name::REPLAY_FORCED, consumer);
    }
    message
}

/// How a replay that is forced in this way ends, alone and in a batch, and how often the handler's parts ran.
async fn ends<C: Store>(forced: Option<&str>) -> Vec<(Ending, (u32, u32))> {
    let mut ends = Vec::new();
    for batch in [1, 10] {
        let (database, feed, mailing) = (C::database(), Feed::new(), Mailing::default());
        let mut settings = inbox::Settings::default();
        settings.batch = batch;
        let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q");
        let builder: Builder<C> = builder.handler(mailing.clone()).settings(settings);
        let mut running = Running::start(builder);
        feed.deliver(&replayed("p1", forced));
        ends.push((running.next().await.ending, mailing.runs()));
        running.stop().await;
    }
    ends
}

async fn a_replay_that_was_forced_for_this_consumer_runs<C: Store>() {
    assert_eq!(ends::<C>(Some("billing")).await, [(Ending::Applied, (1, 1)); 2]);
}

async fn a_replay_that_was_forced_for_another_consumer_does_not_run<C: Store>() {
    let refused = (parked(Reason::ReplayRefused), (0, 0));
    assert_eq!(ends::<C>(Some("shipping")).await, [refused; 2]);
    assert_eq!(ends::<C>(None).await, [refused; 2]);
}

async fn a_replay_reaches_no_handler_with_side_effects_before_a_person_says_so<C: Store>() {
    let (database, feed, mailing) = (C::database(), Feed::new(), Mailing::default());
    let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q");
    let mut settings = inbox::Settings::default();
    settings.retry_poll = std::time::Duration::from_millis(20);
    let builder: Builder<C> = builder.handler(mailing.clone()).settings(settings);
    let mut running = Running::start(builder);
    feed.deliver(&Payment::new("p1", 7).message());
    assert_eq!(running.next().await.ending, Ending::Applied);
    // Whether it was handled before or not: nobody has looked.
    for payment in ["p1", "p2"] {
        feed.deliver(&replayed(payment, None));
        assert_eq!(running.next().await.ending, parked(Reason::ReplayRefused));
    }
    assert_eq!(mailing.runs(), (1, 1));
    let conn = &mut C::connection(&database);
    let rows = C::parked(conn);
    assert_eq!(rows.len(), 2);
    assert!(rows[0].detail.contains("replay 4"), "{}", rows[0].detail);
    let mut ends = Vec::new();
    for row in rows {
        let order = Order::new("anna@desk", "the mails were never sent");
        admin::retry(conn, row.id, &order).expect("retries");
        ends.push(running.next().await.ending);
    }
    assert_eq!(ends, [Ending::Duplicate, Ending::Applied]);
    assert_eq!(mailing.applied.load(Ordering::SeqCst), 2);
    running.stop().await;
}

async fn a_replay_reaches_a_handler_without_side_effects<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let inbox = support::inbox::crediting::<C>(C::pool(&database), Arc::new(feed.clone()), "q");
    let mut running = Running::start(inbox);
    for ending in [Ending::Applied, Ending::Duplicate] {
        feed.deliver(&replayed("p1", None));
        assert_eq!(running.next().await.ending, ending);
    }
    running.stop().await;
    assert_eq!(C::credits(&mut C::connection(&database), "a"), [7]);
}
