//! The counters say what the observer was told: how each delivery and each retry ended, and what it cost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use inbox::telemetry::{ANSWERS_LOST, DELIVERIES, HANDLERS, PANICS, RETRIES, SUBSCRIPTIONS_LOST};
use inbox::{
    Builder, Consumer, Context, Ending, Failure, Inbox, OnReplay, Reason, ReplaySafe, Settings,
    SideEffects,
};
use message::{Message, name};
use support::bookings::Booking;
use support::feed::Feed;
use support::inbox::{Payment, Running, Store, parked};
use support::recorded::Recorded;

use super::on_both;

on_both!(every_ending_is_counted_as_the_observer_was_told, what_is_replay_safe_can_be_listed);

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.max_attempts = 2;
    settings.backoff = Duration::from_millis(1);
    settings.backoff_max = Duration::from_millis(5);
    settings.retry_poll = Duration::from_millis(20);
    settings.early_for = Duration::ZERO;
    // Of two under one operation the first to come is the first.
    settings.concurrency = 1;
    settings
}

/// A consumer with a name of its own, and a handler that does what its payment is called.
fn obeying<C: Store>(database: &support::database::Database, feed: &Feed) -> (String, Builder<C>) {
    let consumer = format!("counted-{}-{}", C::NAME, uuid::Uuid::new_v4().simple());
    let named = Consumer(&consumer);
    let builder = Inbox::new(named, C::pool(database), Arc::new(feed.clone()), "q")
        .settings(settings())
        .on(ReplaySafe, |tx: &mut C, payment: &Payment, context: &Context<'_>| {
            C::credit(tx, &payment.account, payment.cents)?;
            match &*payment.payment {
                "stale" => context.mark_stale(),
                "rejected" => return Err(Failure::reject("never")),
                "review" => return Err(Failure::review("who is this?")),
                "early" => return Err(Failure::early("no account yet")),
                "fails" => return Err(Failure::retry("not today")),
                "panics" => assert_ne!(context.attempt(), 1, "a fault of the handler"),
                _ => {}
            }
            Ok(())
        })
        .on(SideEffects, |_: &mut C, _: &Booking, _| Ok(()));
    (consumer, builder)
}

fn deliver_everything(feed: &Feed) {
    for (payment, cents) in [("ok", 5), ("ok", 5), ("ok", 6)] {
        feed.deliver(&Payment::new(payment, cents).message());
    }
    for payment in ["stale", "rejected", "review", "early", "fails", "panics"] {
        feed.deliver(&Payment::new(payment, 5).message());
    }
    let mut newer = Payment::new("newer", 5).message();
    newer.headers.insert(name::SCHEMA_VERSION, "99");
    feed.deliver(&newer);
    let booking = Booking { account: "a".to_owned(), number: 1, cents: 5 };
    let mut replay = Message::from_event(&booking).expect("valid");
    replay.headers.insert(name::REPLAY, "4");
    feed.deliver(&replay);
    for (kind, payload) in [
        ("payment.succeeded", "{"),
        ("payment.succeeded", r#"{"payment":"","account":"a","cents":5}"#),
        ("payment.unheard_of", "{}"),
    ] {
        feed.deliver_raw(|delivery| {
            delivery.kind = Some(kind.to_owned());
            delivery.headers.insert(name::SCHEMA_VERSION, "1");
            delivery.payload = payload.into();
        });
    }
}

/// Everything that [`deliver_everything`] comes to, with whether it is the end of a retry.
const EVERYTHING: [((Ending, bool), u64); 15] = [
    ((Ending::Applied, false), 1),
    ((Ending::Applied, true), 1),
    ((Ending::Stale, false), 1),
    ((Ending::Duplicate, false), 1),
    ((parked(Reason::Undecodable), false), 1),
    ((parked(Reason::UnknownKind), false), 1),
    ((parked(Reason::UnknownVersion), false), 1),
    ((parked(Reason::NoOperation), false), 1),
    ((parked(Reason::Conflict), false), 1),
    ((parked(Reason::Rejected), false), 1),
    ((parked(Reason::Exhausted), true), 1),
    ((parked(Reason::Failed), false), 2),
    ((parked(Reason::Early), false), 1),
    ((parked(Reason::Review), false), 1),
    ((parked(Reason::ReplayRefused), false), 1),
];

async fn every_ending_is_counted_as_the_observer_was_told<C: Store>() {
    let (recorded, database, feed) = (Recorded::install(), C::database(), Feed::new());
    let (consumer, builder) = obeying::<C>(&database, &feed);
    let mut running = Running::start(builder);
    deliver_everything(&feed);
    let mut told: BTreeMap<(Ending, bool), u64> = BTreeMap::new();
    for _ in 0..16 {
        let next = running.next().await;
        assert!(next.answered, "{next:?}");
        *told.entry((next.ending, next.retried)).or_default() += 1;
    }
    assert_eq!(told, BTreeMap::from(EVERYTHING));

    feed.lose_answers(true);
    feed.deliver(&Payment::new("unheard", 5).message());
    let unheard = running.next().await;
    assert_eq!((unheard.ending, unheard.answered), (Ending::Applied, false));
    *told.entry((Ending::Applied, false)).or_default() += 1;
    running.stop().await;

    let named = |name: &str| recorded.counter(&format!("{name} consumer={consumer}"));
    let ended = |name: &str, ending: Ending| {
        recorded.counter(&format!("{name} consumer={consumer},ending={ending}"))
    };
    for ending in Ending::ALL {
        let of = |retried| Some(told.get(&(ending, retried)).copied().unwrap_or_default());
        assert_eq!(ended(DELIVERIES, ending), of(false), "{ending}");
        assert_eq!(ended(RETRIES, ending), of(true), "{ending}, of a retry");
    }
    assert_eq!((named(PANICS), named(ANSWERS_LOST)), (Some(1), Some(1)));
    assert_eq!(named(SUBSCRIPTIONS_LOST), Some(0));
}

async fn what_is_replay_safe_can_be_listed<C: Store>() {
    let (recorded, database, feed) = (Recorded::install(), C::database(), Feed::new());
    let (consumer, builder) = obeying::<C>(&database, &feed);
    let inbox = builder.build().expect("builds");
    let handlers =
        [("account.booked", OnReplay::SideEffects), ("payment.succeeded", OnReplay::ReplaySafe)];
    assert_eq!(inbox.handlers(), handlers);
    inbox.run_until_idle().await.expect("runs");
    for (kind, on_replay) in handlers {
        let labels = format!("consumer={consumer},kind={kind},on_replay={}", on_replay.as_str());
        assert_eq!(recorded.gauge(&format!("{HANDLERS} {labels}")), Some(1.0));
    }
}
