//! The consumer, delivery by delivery, fed by hand.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use diesel::result::Error;
use inbox::{
    Context, Ended, Ending, Failure, Handler, Inbox, Outcome, ParkedState, Reason, ReplaySafe,
    Settings,
};
use message::{Fingerprint, OperationKey};
use support::feed::{Answer, Feed};
use support::inbox::{BILLING, Payment, Running, Store, crediting, parked};
use tokio::select;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::on_both;

on_both!(
    a_delivery_is_acknowledged_only_after_its_commit,
    a_failing_handler_is_tried_again_while_others_go_on,
    a_rejected_message_is_parked_at_once,
    preparation_runs_outside_and_not_for_known_operations,
    a_held_operation_spends_no_attempt_and_goes_back_unsettled,
    shutdown_finishes_what_runs_and_leaves_what_waits,
    a_foreign_message_gets_its_key_and_fingerprint_here,
    a_cause_is_handed_to_the_handler,
);

/// Settings without long waits.
fn quick() -> Settings {
    let mut settings = Settings::default();
    settings.backoff = Duration::from_millis(1);
    settings.backoff_max = Duration::from_millis(5);
    settings.reconnect = Duration::from_millis(5);
    settings.reconnect_max = Duration::from_millis(20);
    settings
}

async fn a_delivery_is_acknowledged_only_after_its_commit<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    // At the moment of each answer a connection of its own looks at what is committed.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (looking, looks) = (Mutex::new(C::connection(&database)), seen.clone());
    feed.witness(move |number, _| {
        let conn = &mut *looking.lock().unwrap();
        let committed = C::stored(conn, "p1").map(|row| (row.duplicates, row.conflicts));
        looks.lock().unwrap().push((
            number,
            committed,
            C::credits(conn, "a").len(),
            C::parked(conn).len(),
        ));
    });
    let mut running =
        Running::start(crediting(C::pool(&database), Arc::new(feed.clone()), "q").concurrency(1));
    let message = Payment::new("p1", 50).message();
    feed.deliver(&message);
    feed.deliver(&message);
    feed.deliver(&Payment::new("p1", 99).message());
    for ending in [Ending::Applied, Ending::Duplicate, parked(Reason::Conflict)] {
        assert_eq!(running.next().await.ending, ending);
    }
    let expected = [(0, Some((0, 0)), 1, 0), (1, Some((1, 0)), 1, 0), (2, Some((1, 1)), 1, 1)];
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(running.stop().await, []);
}

async fn a_failing_handler_is_tried_again_while_others_go_on<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let mut settings = quick();
    settings.max_attempts = 3;
    // One worker: if a failing delivery kept it, nothing else would pass.
    settings.concurrency = 1;
    let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q")
        .on(ReplaySafe, move |tx: &mut C, payment: &Payment, context: &Context<'_>| {
            C::credit(tx, &payment.account, payment.cents)?;
            if payment.payment == "bad" {
                assert_eq!(context.attempt(), counted.fetch_add(1, Ordering::SeqCst) + 1);
                return Err(Failure::retry("the ledger is closed"));
            }
            Ok(())
        })
        .settings(settings);
    let mut running = Running::start(builder);
    let bad = feed.deliver(&Payment::new("bad", 1).message());
    let good = feed.deliver(&Payment::new("good", 2).message());
    let told = running.by_attempts(4).await;
    let failed = parked(Reason::Failed);
    let expected = [(Ending::Applied, 1), (failed, 1), (failed, 2), (parked(Reason::Exhausted), 3)];
    assert_eq!(told, expected);
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    assert_eq!((feed.answer(bad), feed.answer(good)), (Some(Answer::Ack), Some(Answer::Ack)));
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "a"), [2]);
    assert_eq!(C::stored(conn, "bad"), None);
    let row = &C::parked(conn)[0];
    assert_eq!(
        (row.reason, row.attempts, row.detail.as_str()),
        (Reason::Exhausted, 3, "the ledger is closed")
    );
    running.stop().await;
}

async fn a_rejected_message_is_parked_at_once<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q").on(
        ReplaySafe,
        |tx: &mut C, payment: &Payment, _: &Context<'_>| {
            C::credit(tx, &payment.account, payment.cents)?;
            Err::<(), _>(Failure::reject("no such account"))
        },
    );
    let mut running = Running::start(builder);
    feed.deliver(&Payment::new("p1", 1).message());
    let told = running.next().await;
    assert_eq!((told.ending, told.attempts), (parked(Reason::Rejected), 1));
    let conn = &mut C::connection(&database);
    assert!(C::credits(conn, "a").is_empty());
    assert_eq!(C::parked(conn)[0].detail, "no such account");
    running.stop().await;
}

/// Asks the world for a price before it credits; the first `apply` fails.
#[derive(Clone, Default)]
struct Priced {
    prepared: Arc<AtomicU32>,
    applied: Arc<AtomicU32>,
}

impl<C: Store> Handler<C> for Priced {
    const ON_REPLAY: inbox::OnReplay = ReplaySafe;
    type Event = Payment;
    type Prepared = i64;
    type Receipt = i64;

    async fn prepare(&self, payment: &Payment, _: &Context<'_>) -> Result<i64, Failure> {
        tokio::task::yield_now().await;
        Ok(payment.cents * 10 + i64::from(self.prepared.fetch_add(1, Ordering::SeqCst)))
    }

    fn apply(
        &self,
        tx: &mut C,
        payment: &Payment,
        price: &i64,
        _: &Context<'_>,
    ) -> Result<i64, Failure> {
        C::credit(tx, &payment.account, *price)?;
        if self.applied.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(Failure::retry("not yet"));
        }
        Ok(*price)
    }
}

async fn preparation_runs_outside_and_not_for_known_operations<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let handler = Priced::default();
    let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q")
        .handler(handler.clone())
        .settings(quick());
    let mut running = Running::start(builder);
    feed.deliver(&Payment::new("p1", 5).message());
    assert_eq!(running.by_attempts(2).await, [(parked(Reason::Failed), 1), (Ending::Applied, 2)]);
    feed.deliver(&Payment::new("p1", 5).message());
    feed.deliver(&Payment::new("p1", 6).message());
    assert_eq!(running.endings(2).await, [parked(Reason::Conflict), Ending::Duplicate]);
    // Once per attempt, with the second one's result, and never for a repeat.
    assert_eq!(
        (handler.prepared.load(Ordering::SeqCst), handler.applied.load(Ordering::SeqCst)),
        (2, 2)
    );
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "a"), [51]);
    assert_eq!(C::stored(conn, "p1").and_then(|row| row.result).as_deref(), Some("51"));
    running.stop().await;
}

async fn a_held_operation_spends_no_attempt_and_goes_back_unsettled<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let mut guarded = db::Settings::default();
    guarded.lock_timeout = Duration::from_millis(20);
    let mut settings = quick();
    settings.hold = Duration::from_millis(200);
    settings.max_attempts = 1;
    settings.transaction_retries = 0;
    let builder =
        crediting(C::pool_with(&database, guarded), Arc::new(feed.clone()), "q").settings(settings);
    let mut running = Running::start(builder);
    let payment = Payment::new("p1", 50);
    let (key, fingerprint) =
        (Payment::key("p1"), Fingerprint::of_payload(&payment.message().payload, &[]));
    let mut other = C::connection(&database);
    let (claimed, release) = (Arc::new(Semaphore::new(0)), Arc::new(std::sync::Barrier::new(2)));
    let (tell, wait) = (claimed.clone(), release.clone());
    let holding = tokio::task::spawn_blocking(move || {
        other.write(|tx| {
            let applied = inbox::once(tx, BILLING, &key, &fingerprint, |_| {
                Ok::<_, Error>("elsewhere".to_owned())
            })?;
            assert_eq!(applied, Outcome::Applied("elsewhere".to_owned()));
            tell.add_permits(1);
            wait.wait();
            Ok::<_, Error>(())
        })
    });
    claimed.acquire().await.expect("open").forget();
    let number = feed.deliver(&payment.message());
    let told = running.next().await;
    assert_eq!((told.ending, told.attempts), (Ending::Unsettled, 0));
    assert_eq!(feed.answer(number), Some(Answer::Requeue));
    tokio::task::spawn_blocking(move || release.wait()).await.expect("no panic");
    holding.await.expect("no panic").expect("commits");
    feed.deliver(&payment.message());
    assert_eq!(running.next().await.ending, Ending::Duplicate);
    assert_eq!(C::parked(&mut C::connection(&database)), []);
    running.stop().await;
}

async fn shutdown_finishes_what_runs_and_leaves_what_waits<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let (entered, go) = (Arc::new(Semaphore::new(0)), Arc::new(std::sync::Barrier::new(2)));
    let (enter, gone) = (entered.clone(), go.clone());
    let mut settings = quick();
    settings.backoff = Duration::from_secs(3600);
    settings.backoff_max = Duration::from_secs(3600);
    settings.concurrency = 1;
    let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q")
        .on(ReplaySafe, move |tx: &mut C, payment: &Payment, _: &Context<'_>| {
            if payment.payment == "waits" {
                return Err(Failure::retry("in an hour"));
            }
            enter.add_permits(1);
            gone.wait();
            C::credit(tx, &payment.account, payment.cents)?;
            Ok(())
        })
        .settings(settings);
    let (tell, mut told) = mpsc::unbounded_channel();
    let tell = move |ended: &Ended<'_>| tell.send(ended.ending).expect("the test listens");
    let inbox = builder.observe(tell).build().expect("builds");
    let (stop, stopped) = oneshot::channel::<()>();
    let mut run = pin!(inbox.run(async { stopped.await.expect("told to stop") }));
    let waits = feed.deliver(&Payment::new("waits", 1).message());
    let runs = feed.deliver(&Payment::new("runs", 2).message());
    let unstarted = feed.deliver(&Payment::new("unstarted", 3).message());
    select! {
        ended = &mut run => panic!("nobody told it to stop: {ended:?}"),
        permit = entered.acquire() => permit.expect("open").forget(),
    }
    stop.send(()).expect("it waits for that");
    // Polled here and not by a task of its own: it has seen the stop before the handler may go on. A
    // handler that returns sooner rightly lets the next message begin.
    let ended = poll_fn(|context| Poll::Ready(run.as_mut().poll(context).is_ready())).await;
    assert!(!ended, "a handler is running");
    tokio::task::spawn_blocking(move || go.wait()).await.expect("no panic");
    run.await.expect("stops well");
    let mut endings: Vec<_> = std::iter::from_fn(|| told.try_recv().ok()).collect();
    endings.sort_by_key(|ending| ending.as_str());
    assert_eq!(endings, [Ending::Applied, parked(Reason::Failed)]);
    assert_eq!((feed.answer(runs), feed.answer(waits)), (Some(Answer::Ack), Some(Answer::Ack)));
    assert_eq!(feed.answer(unstarted), None);
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "a"), [2]);
    assert_eq!(
        C::parked(conn).iter().map(|row| row.state).collect::<Vec<_>>(),
        [ParkedState::Retry]
    );
}

async fn a_foreign_message_gets_its_key_and_fingerprint_here<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let builder = crediting::<C>(C::pool(&database), Arc::new(feed.clone()), "q")
        .operation_key("payment.succeeded", |incoming| {
            OperationKey::new("foreign", incoming.headers.get("x-payment")?).ok()
        })
        .concurrency(1);
    let mut running = Running::start(builder);
    let deliver = |header: Option<&str>, payload: &'static str| {
        feed.deliver_raw(|delivery| {
            delivery.kind = Some("payment.succeeded".into());
            if let Some(id) = header {
                delivery.headers.insert("x-payment", id);
            }
            delivery.payload = payload.into();
        });
    };
    // The key function names it; order of fields and white space are no difference, an amount is.
    deliver(Some("f1"), r#"{"payment":"p1","account":"a","cents":50}"#);
    deliver(Some("f1"), r#"{ "cents": 50, "payment": "p1", "account": "a" }"#);
    deliver(Some("f1"), r#"{"payment":"p1","account":"a","cents":51}"#);
    // Without one the event itself names it.
    deliver(None, r#"{"payment":"p1","account":"a","cents":50}"#);
    for ending in [Ending::Applied, Ending::Duplicate, parked(Reason::Conflict), Ending::Applied] {
        assert_eq!(running.next().await.ending, ending);
    }
    let conn = &mut C::connection(&database);
    let foreign = OperationKey::new("foreign", "f1").expect("valid");
    assert!(inbox::operation(conn, BILLING, &foreign).expect("reads").is_some());
    assert!(C::stored(conn, "p1").is_some());
    running.stop().await;
}

async fn a_cause_is_handed_to_the_handler<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let causes = Arc::new(Mutex::new(Vec::new()));
    let noted = causes.clone();
    let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q")
        .on(ReplaySafe, move |_: &mut C, _: &Payment, context: &Context<'_>| {
            let owned = context
                .cause()
                .map(|(correlation, cause)| (correlation.to_owned(), cause.to_owned()));
            noted.lock().unwrap().push(owned);
            Ok(())
        })
        .concurrency(1);
    let mut running = Running::start(builder);
    let mut first = Payment::new("p1", 1).message();
    let (begins, id) = (first.id.to_string(), first.id.to_string());
    feed.deliver(&first);
    first.operation = "p2".into();
    first.set_cause("talk", "earlier");
    feed.deliver(&first);
    assert_eq!(running.endings(2).await, [Ending::Applied; 2]);
    assert_eq!(
        *causes.lock().unwrap(),
        [Some((begins, id.clone())), Some(("talk".to_owned(), id))]
    );
    running.stop().await;
}
