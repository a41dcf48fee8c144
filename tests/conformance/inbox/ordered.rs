//! The order of an ordering key, with many workers and around what is parked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use db::Db;
use diesel::result::Error;
use inbox::{Builder, Context, Ending, Failure, Inbox, ParkedState, Reason, ReplaySafe, Settings};
use message::{Fingerprint, Message};
use support::broker::Corner;
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Running, Store, parked};
use transport::Publisher;
use transport::memory::MemoryBroker;

use super::on_both;

on_both!(
    messages_of_a_key_are_applied_as_they_come,
    later_ones_of_a_key_wait_behind_a_parked_one_and_follow_in_order,
    a_key_goes_on_around_what_a_person_has_to_decide_only_if_told_so,
    a_repeat_of_the_first_does_not_wait_behind_itself,
    without_order_nothing_waits_behind_anything,
    what_waits_behind_nothing_is_found,
    what_is_early_does_not_hold_up_what_it_waits_for,
    a_conflict_holds_up_nothing,
    a_long_line_is_worked_off_without_waiting_for_the_next_look,
    what_cannot_be_settled_is_not_overtaken,
);

const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn ordered() -> Settings {
    let mut settings = Settings::default();
    settings.ordered = true;
    settings.retry_poll = Duration::from_millis(20);
    settings
}

pub(super) fn keyed(key: &str, payment: &str) -> Message {
    let mut message = Payment { account: key.to_owned(), ..Payment::new(payment, 1) }.message();
    message.ordering_key = Some(key.to_owned());
    message
}

/// What was applied, by key, in order.
pub(super) type Log = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

pub(super) fn logging<C: Store>(
    db: Db<C>,
    feed: &Feed,
    log: &Log,
    decide: impl Fn(&Payment) -> Result<(), Failure> + Send + Sync + 'static,
) -> Builder<C> {
    let log = log.clone();
    Inbox::new(BILLING, db, Arc::new(feed.clone()), "q")
        .on(ReplaySafe, move |tx: &mut C, payment: &Payment, _: &Context<'_>| {
            decide(payment)?;
            C::credit(tx, &payment.account, payment.cents)?;
            let mut log = log.lock().unwrap();
            log.entry(payment.account.clone()).or_default().push(payment.payment.clone());
            Ok(())
        })
        .settings(ordered())
}

async fn messages_of_a_key_are_applied_as_they_come<C: Store>() {
    const KEYS: usize = 7;
    const EACH: usize = 20;
    let (database, feed, log) = (C::database(), Feed::new(), Log::default());
    let builder = logging(C::pool(&database), &feed, &log, |_| Ok(()));
    let mut expected = BTreeMap::<String, Vec<String>>::new();
    for number in 0..EACH {
        for key in 0..KEYS {
            let (key, payment) = (format!("k{key}"), format!("k{key}-{number}"));
            feed.deliver(&keyed(&key, &payment));
            expected.entry(key).or_default().push(payment);
        }
    }
    let mut running = Running::start(builder.concurrency(4));
    assert_eq!(running.endings(KEYS * EACH).await, [Ending::Applied; KEYS * EACH]);
    assert_eq!(*log.lock().unwrap(), expected);
    running.stop().await;
}

async fn later_ones_of_a_key_wait_behind_a_parked_one_and_follow_in_order<C: Store>() {
    let (database, feed, log) = (C::database(), Feed::new(), Log::default());
    let fails = Arc::new(AtomicBool::new(true));
    let failing = fails.clone();
    let builder = logging(C::pool(&database), &feed, &log, move |payment| {
        if payment.payment == "a1" && failing.load(Ordering::SeqCst) {
            return Err(Failure::retry_after(HOUR, "closed"));
        }
        Ok(())
    });
    let mut running = Running::start(builder.concurrency(1));
    for message in [keyed("a", "a1"), keyed("a", "a2"), keyed("b", "b1"), keyed("a", "a3")] {
        feed.deliver(&message);
    }
    let mut endings = Vec::new();
    for _ in 0..4 {
        endings.push(running.next().await.ending);
    }
    let behind = parked(Reason::Behind);
    // One worker has one line for both keys.
    assert_eq!(endings, [parked(Reason::Failed), behind, Ending::Applied, behind]);
    let conn = &mut C::connection(&database);
    let states: Vec<_> =
        C::parked(conn).iter().map(|row| (row.state, row.ordering_key.clone())).collect();
    let key = Some("a".to_owned());
    assert_eq!(
        states,
        [
            (ParkedState::Retry, key.clone()),
            (ParkedState::Behind, key.clone()),
            (ParkedState::Behind, key)
        ]
    );
    fails.store(false, Ordering::SeqCst);
    inbox::testing::pass_time(conn, BILLING, HOUR).expect("passes");
    assert_eq!(running.endings(3).await, [Ending::Applied; 3]);
    feed.deliver(&keyed("a", "a4"));
    assert_eq!(running.next().await.ending, Ending::Applied);
    let log = log.lock().unwrap().clone();
    assert_eq!(log["a"], ["a1", "a2", "a3", "a4"]);
    assert_eq!(log["b"], ["b1"]);
    assert_eq!(C::parked(conn), []);
    running.stop().await;
}

async fn a_key_goes_on_around_what_a_person_has_to_decide_only_if_told_so<C: Store>() {
    for skip in [false, true] {
        let (database, feed, log) = (C::database(), Feed::new(), Log::default());
        let mut settings = ordered();
        settings.skip_reviewed = skip;
        settings.concurrency = 1;
        let builder = logging(C::pool(&database), &feed, &log, |payment| {
            if payment.payment == "a1" { Err(Failure::review("odd")) } else { Ok(()) }
        });
        let mut running = Running::start(builder.settings(settings));
        feed.deliver(&keyed("a", "a1"));
        assert_eq!(running.next().await.ending, parked(Reason::Review));
        feed.deliver(&keyed("a", "a2"));
        let expected = if skip { Ending::Applied } else { parked(Reason::Behind) };
        assert_eq!(running.next().await.ending, expected, "skip {skip}");
        assert_eq!(running.stop().await, []);
    }
}

async fn a_repeat_of_the_first_does_not_wait_behind_itself<C: Store>() {
    let (database, feed, log) = (C::database(), Feed::new(), Log::default());
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let builder = logging(C::pool(&database), &feed, &log, move |_| {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(Failure::retry_after(HOUR, "closed"));
        }
        Ok(())
    });
    let mut running = Running::start(builder);
    let message = keyed("a", "a1");
    feed.deliver(&message);
    assert_eq!(running.next().await.ending, parked(Reason::Failed));
    feed.deliver(&message);
    assert_eq!(running.next().await.ending, parked(Reason::Behind));
    let conn = &mut C::connection(&database);
    let rows = C::parked(conn);
    assert_eq!(rows.iter().map(|row| row.state).collect::<Vec<_>>(), [ParkedState::Retry]);
    inbox::testing::pass_time(conn, BILLING, HOUR).expect("passes");
    assert_eq!(running.next().await.ending, Ending::Applied);
    assert_eq!(C::parked(conn), []);
    running.stop().await;
}

async fn without_order_nothing_waits_behind_anything<C: Store>() {
    let (database, feed, log) = (C::database(), Feed::new(), Log::default());
    let builder = logging(C::pool(&database), &feed, &log, |payment| {
        if payment.payment == "a1" { Err(Failure::review("odd")) } else { Ok(()) }
    });
    let mut running = Running::start(builder);
    feed.deliver(&keyed("a", "a1"));
    assert_eq!(running.next().await.ending, parked(Reason::Review));
    feed.deliver(&keyed("a", "a2"));
    assert_eq!(running.next().await.ending, parked(Reason::Behind));
    running.stop().await;
    // The same consumer, from now on without order.
    let mut settings = ordered();
    settings.ordered = false;
    let builder = logging(C::pool(&database), &feed, &log, |_| Ok(()));
    let mut running = Running::start(builder.settings(settings));
    assert_eq!(running.next().await.ending, Ending::Applied);
    feed.deliver(&keyed("a", "a3"));
    assert_eq!(running.next().await.ending, Ending::Applied);
    assert_eq!(log.lock().unwrap()["a"], ["a2", "a3"]);
    running.stop().await;
}

async fn what_waits_behind_nothing_is_found<C: Store>() {
    let (database, feed, log) = (C::database(), Feed::new(), Log::default());
    let decide = |payment: &Payment| {
        if payment.payment == "a1" { Err(Failure::review("odd")) } else { Ok(()) }
    };
    let mut running = Running::start(logging(C::pool(&database), &feed, &log, decide));
    for payment in ["a1", "a2", "a3"] {
        feed.deliver(&keyed("a", payment));
        running.next().await;
    }
    running.stop().await;
    // By hand, past every command that would have told the inbox.
    let conn = &mut C::connection(&database);
    conn.batch_execute("DELETE FROM inbox_parked WHERE reason = 'review'").expect("deletes");
    let mut running = Running::start(logging(C::pool(&database), &feed, &log, decide));
    assert_eq!(running.endings(2).await, [Ending::Applied; 2]);
    assert_eq!(log.lock().unwrap()["a"], ["a2", "a3"]);
    running.stop().await;
}

async fn what_is_early_does_not_hold_up_what_it_waits_for<C: Store>() {
    let (database, feed, log) = (C::database(), Feed::new(), Log::default());
    let seen = log.clone();
    let builder = logging(C::pool(&database), &feed, &log, move |payment| {
        let there = seen.lock().unwrap().get("a").is_some_and(|log| log.contains(&"first".into()));
        if payment.payment == "second" && !there {
            return Err(Failure::early("the first is not there"));
        }
        Ok(())
    });
    let mut settings = ordered();
    settings.early = HOUR;
    settings.early_max = HOUR;
    settings.early_for = 10 * HOUR;
    let mut running = Running::start(builder.settings(settings));
    feed.deliver(&keyed("a", "second"));
    assert_eq!(running.next().await.ending, parked(Reason::Early));
    feed.deliver(&keyed("a", "first"));
    assert_eq!(running.next().await.ending, Ending::Applied);
    inbox::testing::pass_time(&mut C::connection(&database), BILLING, HOUR).expect("passes");
    assert_eq!(running.next().await.ending, Ending::Applied);
    assert_eq!(log.lock().unwrap()["a"], ["first", "second"]);
    running.stop().await;
}

async fn a_conflict_holds_up_nothing<C: Store>() {
    let (database, feed, log) = (C::database(), Feed::new(), Log::default());
    let builder = logging(C::pool(&database), &feed, &log, |_| Ok(()));
    let mut running = Running::start(builder);
    feed.deliver(&keyed("a", "a1"));
    assert_eq!(running.next().await.ending, Ending::Applied);
    let mut changed = Payment { account: "a".to_owned(), ..Payment::new("a1", 99) }.message();
    changed.ordering_key = Some("a".to_owned());
    feed.deliver(&changed);
    assert_eq!(running.next().await.ending, parked(Reason::Conflict));
    feed.deliver(&keyed("a", "a2"));
    assert_eq!(running.next().await.ending, Ending::Applied);
    running.stop().await;
}

async fn a_long_line_is_worked_off_without_waiting_for_the_next_look<C: Store>() {
    const BEHIND: usize = 25;
    let (database, feed, log) = (C::database(), Feed::new(), Log::default());
    let decide = |payment: &Payment| {
        if payment.payment == "a0" { Err(Failure::review("odd")) } else { Ok(()) }
    };
    let mut running = Running::start(logging(C::pool(&database), &feed, &log, decide));
    for number in 0..=BEHIND {
        feed.deliver(&keyed("a", &format!("a{number}")));
        running.next().await;
    }
    running.stop().await;
    let conn = &mut C::connection(&database);
    conn.batch_execute("DELETE FROM inbox_parked WHERE reason = 'review'").expect("deletes");
    // It looks once, at its start, and for the rest of the test only when it is told to.
    let mut settings = ordered();
    settings.retry_poll = HOUR;
    let builder = logging(C::pool(&database), &feed, &log, decide).settings(settings);
    let mut running = Running::start(builder);
    assert_eq!(running.endings(BEHIND).await, [Ending::Applied; BEHIND]);
    let expected: Vec<_> = (1..=BEHIND).map(|number| format!("a{number}")).collect();
    assert_eq!(log.lock().unwrap()["a"], expected);
    running.stop().await;
}

async fn what_cannot_be_settled_is_not_overtaken<C: Store>() {
    let (database, broker, log) = (C::database(), MemoryBroker::new(), Log::default());
    let corner = Corner::new(broker.clone());
    let (exchange, queue) = corner.pair().await;
    let messages = ["a1", "a2"].map(|payment| {
        let mut message = keyed("a", payment);
        (message.exchange, message.routing_key) = (exchange.clone(), "ok".into());
        message
    });
    broker.open_lane().await.expect("a lane").publish(&messages).await.expect("published");
    // Somebody else is at the first one's operation, for as long as it takes.
    let (held, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (holds, goes, mut conn) = (held.clone(), go.clone(), C::connection(&database));
    let holder = tokio::task::spawn_blocking(move || {
        conn.write(|tx| {
            let (key, fingerprint) = (Payment::key("a1"), Fingerprint::of_bytes(b""));
            let taken = inbox::once(tx, BILLING, &key, &fingerprint, |_| Ok::<_, Error>(()))?;
            assert_eq!(taken, inbox::Outcome::Applied(()));
            holds.wait();
            goes.wait();
            Err::<(), Error>(Error::RollbackTransaction)
        })
    });
    tokio::task::spawn_blocking(move || held.wait()).await.expect("no panic");
    let mut limits = db::Settings::default();
    limits.lock_timeout = Duration::from_millis(20);
    let mut settings = ordered();
    (settings.concurrency, settings.hold) = (1, Duration::from_millis(1));
    (settings.reconnect, settings.reconnect_max) = (Duration::from_millis(1), HOUR);
    let db = C::pool_with(&database, limits);
    let applied = log.clone();
    let builder = Inbox::new(BILLING, db, Arc::new(broker), &queue)
        .on(ReplaySafe, move |_: &mut C, payment: &Payment, _: &Context<'_>| {
            applied.lock().unwrap().entry("a".into()).or_default().push(payment.payment.clone());
            Ok(())
        })
        .settings(settings);
    let mut running = Running::start(builder);
    assert_eq!(running.next().await.ending, Ending::Unsettled);
    tokio::task::spawn_blocking(move || go.wait()).await.expect("no panic");
    assert_eq!(holder.await.expect("no panic"), Err(Error::RollbackTransaction));
    let mut endings = Vec::new();
    while endings.len() < 2 {
        endings.extend(Some(running.next().await.ending).filter(|it| *it != Ending::Unsettled));
    }
    assert_eq!(endings, [Ending::Applied; 2]);
    assert_eq!(log.lock().unwrap()["a"], ["a1", "a2"]);
    running.stop().await;
    corner.clean().await;
}
