//! A panic in either part of a handler, or in the decoding of an event, rolls back what was written,
//! costs its connection, counts as an attempt and stops nobody else.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use diesel::{PgConnection, SqliteConnection};
use inbox::{Context, Ending, Failure, Handler, Inbox, Reason, ReplaySafe, Settings};
use message::{Event, Message};
use serde::{Deserialize, Deserializer, Serialize};
use support::feed::{Answer, Feed};
use support::inbox::{BILLING, Payment, Running, Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_postgres() {
    support::bounded(scenario::<PgConnection>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_sqlite() {
    support::bounded(scenario::<SqliteConnection>()).await;
}

/// Its decoding panics.
#[derive(Serialize)]
struct Cursed;

impl<'de> Deserialize<'de> for Cursed {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("cursed")
    }
}

impl Event for Cursed {
    const KIND: &'static str = "test.cursed";

    fn operation(&self) -> Cow<'_, str> {
        "c1".into()
    }
}

/// Panics in the part its payment names.
struct Panics;

impl<C: Store> Handler<C> for Panics {
    const ON_REPLAY: inbox::OnReplay = ReplaySafe;
    type Event = Payment;
    type Prepared = ();
    type Receipt = ();

    async fn prepare(&self, payment: &Payment, _: &Context<'_>) -> Result<(), Failure> {
        tokio::task::yield_now().await;
        assert_ne!(payment.payment, "prepare", "in prepare");
        Ok(())
    }

    fn apply(&self, tx: &mut C, payment: &Payment, _: &(), _: &Context<'_>) -> Result<(), Failure> {
        C::credit(tx, &payment.account, payment.cents)?;
        assert_ne!(payment.payment, "apply", "in apply");
        Ok(())
    }
}

async fn scenario<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let mut settings = Settings::default();
    settings.max_attempts = 2;
    settings.backoff = Duration::from_millis(1);
    // One connection and one worker: whatever a panic leaves behind, the next delivery gets.
    settings.concurrency = 1;
    let db = C::pool_with(&database, db::Settings::default().with_pool_size(1));
    let builder = Inbox::new(BILLING, db, Arc::new(feed.clone()), "q")
        .handler(Panics)
        .on(ReplaySafe, |_: &mut C, _: &Cursed, _| Ok(()))
        .settings(settings);
    let mut running = Running::start(builder);
    let cursed = Message::from_event(&Cursed).expect("valid");
    let sent = [
        feed.deliver(&Payment::new("apply", 1).message()),
        feed.deliver(&Payment::new("prepare", 2).message()),
        feed.deliver(&cursed),
        feed.deliver(&Payment::new("fine", 3).message()),
    ];
    let mut told = Vec::new();
    // Two of them twice.
    for _ in 0..sent.len() + 2 {
        let one = running.next().await;
        told.push((one.ending.as_str(), one.attempts));
    }
    told.sort_unstable();
    let expected = [
        ("applied", 1),
        ("exhausted", 2),
        ("exhausted", 2),
        ("failed", 1),
        ("failed", 1),
        ("undecodable", 0),
    ];
    assert_eq!(told, expected);
    assert!(sent.iter().all(|number| feed.answer(*number) == Some(Answer::Ack)));
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "a"), [3]);
    assert_eq!((C::stored(conn, "apply"), C::stored(conn, "prepare")), (None, None));
    let mut details: Vec<_> =
        C::parked(conn).into_iter().map(|row| (row.reason, row.detail)).collect();
    details.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(details[0], (Reason::Undecodable, "decoding it panicked: cursed".to_owned()));
    for ((reason, detail), part) in details[1..].iter().zip(["in apply", "in prepare"]) {
        assert_eq!(*reason, Reason::Exhausted);
        assert!(detail.starts_with("panicked: ") && detail.contains(part), "{detail}");
    }
    // Still at work.
    feed.deliver(&Payment::new("later", 4).message());
    assert_eq!(running.next().await.ending, Ending::Applied);
    running.stop().await;
}
