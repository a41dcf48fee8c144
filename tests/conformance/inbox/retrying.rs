//! Messages that cannot be applied yet wait in the parking lot, and what becomes of them there.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use db::Db;
use inbox::{Builder, Context, Ending, Failure, Inbox, ParkedState, Reason, ReplaySafe, Settings};
use support::feed::{Answer, Feed};
use support::inbox::{BILLING, Payment, Running, Store, parked};
use tokio::sync::Semaphore;

use super::on_both;

on_both!(
    a_failed_message_waits_in_the_lot_and_is_applied_when_due,
    a_pause_of_the_handler_s_choice_is_by_the_database_s_clock,
    what_is_early_waits_for_its_time_without_attempts,
    what_is_early_for_too_long_is_for_a_person,
    what_a_person_has_to_decide_is_not_tried_again,
    a_retry_of_what_was_applied_meanwhile_is_a_duplicate,
    a_retry_whose_message_was_taken_away_leaves_nothing,
    each_due_message_goes_to_one_of_several_inboxes,
    a_repeat_of_what_waits_changes_nothing,
);

const HOUR: Duration = Duration::from_secs(3600);

/// Short pauses, and many of them.
fn quick() -> Settings {
    let mut settings = Settings::default();
    settings.backoff = Duration::from_millis(1);
    settings.backoff_max = Duration::from_millis(5);
    settings.early = Duration::from_millis(1);
    settings.early_max = Duration::from_millis(5);
    settings.retry_poll = Duration::from_millis(20);
    settings
}

/// A handler that credits, then says what `decide` says.
pub(super) fn deciding<C: Store>(
    db: Db<C>,
    feed: &Feed,
    decide: impl Fn(&Payment, &Context<'_>) -> Result<(), Failure> + Send + Sync + 'static,
) -> Builder<C> {
    Inbox::new(BILLING, db, Arc::new(feed.clone()), "q")
        .on(ReplaySafe, move |tx: &mut C, payment: &Payment, context: &Context<'_>| {
            C::credit(tx, &payment.account, payment.cents)?;
            decide(payment, context)
        })
        .settings(quick())
}

async fn a_failed_message_waits_in_the_lot_and_is_applied_when_due<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let mut running = Running::start(deciding(C::pool(&database), &feed, |_, context| {
        if context.attempt() < 3 { Err(Failure::retry("not yet")) } else { Ok(()) }
    }));
    let number = feed.deliver(&Payment::new("p1", 7).message());
    let failed = parked(Reason::Failed);
    assert_eq!(running.by_attempts(3).await, [(failed, 1), (failed, 2), (Ending::Applied, 3)]);
    assert_eq!(feed.answer(number), Some(Answer::Ack));
    let conn = &mut C::connection(&database);
    assert_eq!((C::credits(conn, "a"), C::parked(conn)), (vec![7], vec![]));
    running.stop().await;
}

async fn a_pause_of_the_handler_s_choice_is_by_the_database_s_clock<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let mut running = Running::start(deciding(C::pool(&database), &feed, |_, context| {
        if context.attempt() == 1 {
            return Err(Failure::retry_after(HOUR, "closed until noon"));
        }
        Ok(())
    }));
    feed.deliver(&Payment::new("p1", 7).message());
    assert_eq!(running.next().await.ending, parked(Reason::Failed));
    let conn = &mut C::connection(&database);
    let rows = C::parked(conn);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.state, row.detail.as_str()), (ParkedState::Retry, "closed until noon"));
    let due = row.not_before.expect("due some time");
    let pause = due.duration_since(row.parked_at).expect("later");
    assert!(pause >= HOUR - Duration::from_secs(5) && pause <= HOUR + Duration::from_secs(5));
    inbox::testing::pass_time(conn, BILLING, HOUR).expect("passes");
    let told = running.next().await;
    assert_eq!((told.ending, told.attempts), (Ending::Applied, 2));
    assert_eq!(C::credits(conn, "a"), [7]);
    running.stop().await;
}

async fn what_is_early_waits_for_its_time_without_attempts<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let opened = Arc::new(AtomicBool::new(false));
    let (open, tries) = (opened.clone(), Arc::new(Semaphore::new(0)));
    let tried = tries.clone();
    let builder = deciding(C::pool(&database), &feed, move |payment, _| {
        if payment.payment == "early" && !opened.load(Ordering::SeqCst) {
            tried.add_permits(1);
            return Err(Failure::early("the account is not there"));
        }
        Ok(())
    });
    let mut running = Running::start(builder);
    feed.deliver(&Payment::new("early", 1).message());
    // More often than a failing one might be.
    tries.acquire_many(12).await.expect("open").forget();
    open.store(true, Ordering::SeqCst);
    let told = loop {
        let told = running.next().await;
        if told.ending != parked(Reason::Early) {
            break told;
        }
        assert_eq!(told.attempts, 0);
    };
    assert_eq!((told.ending, told.attempts), (Ending::Applied, 1));
    let conn = &mut C::connection(&database);
    assert_eq!((C::credits(conn, "a"), C::parked(conn)), (vec![1], vec![]));
    running.stop().await;
}

async fn what_is_early_for_too_long_is_for_a_person<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let mut settings = quick();
    settings.early = HOUR;
    settings.early_max = HOUR;
    settings.early_for = HOUR;
    let builder =
        deciding(C::pool(&database), &feed, |_, _| Err(Failure::early("no such account yet")));
    let mut running = Running::start(builder.settings(settings));
    feed.deliver(&Payment::new("p1", 1).message());
    assert_eq!(running.next().await.ending, parked(Reason::Early));
    let conn = &mut C::connection(&database);
    assert_eq!(C::parked(conn)[0].state, ParkedState::Retry);
    inbox::testing::pass_time(conn, BILLING, 2 * HOUR).expect("passes");
    assert_eq!(running.next().await.ending, parked(Reason::Early));
    let row = &C::parked(conn)[0];
    assert_eq!((row.state, row.not_before), (ParkedState::Review, None));
    assert_eq!(row.detail, "no such account yet");
    assert_eq!(running.stop().await, []);
}

async fn what_a_person_has_to_decide_is_not_tried_again<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let builder =
        deciding(C::pool(&database), &feed, move |payment, _| match payment.payment.as_str() {
            "odd" => {
                counted.fetch_add(1, Ordering::SeqCst);
                Err(Failure::review("twice the usual amount"))
            }
            "bad" => {
                counted.fetch_add(1, Ordering::SeqCst);
                Err(Failure::reject("no such account"))
            }
            _ => Ok(()),
        });
    let mut running = Running::start(builder.concurrency(1));
    feed.deliver(&Payment::new("odd", 1).message());
    assert_eq!(running.next().await.ending, parked(Reason::Review));
    feed.deliver(&Payment::new("bad", 2).message());
    assert_eq!(running.next().await.ending, parked(Reason::Rejected));
    let conn = &mut C::connection(&database);
    let rows = C::parked(conn);
    assert!(rows.iter().all(|row| row.state == ParkedState::Review && row.not_before.is_none()));
    inbox::testing::pass_time(conn, BILLING, 1000 * HOUR).expect("passes");
    // A witness that fails once goes through the lot in the meantime.
    assert_eq!(C::credits(conn, "a"), [0; 0]);
    feed.deliver(&Payment::new("good", 3).message());
    assert_eq!(running.next().await.ending, Ending::Applied);
    assert_eq!(running.stop().await, []);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert_eq!(C::parked(conn).len(), 2);
}

async fn a_retry_of_what_was_applied_meanwhile_is_a_duplicate<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let builder = deciding(C::pool(&database), &feed, |payment, context| {
        let first = context.headers().get("first").is_some();
        if first { Err(Failure::retry_after(HOUR, payment.payment.clone())) } else { Ok(()) }
    });
    let mut running = Running::start(builder);
    let mut message = Payment::new("p1", 7).message();
    message.headers.insert("first", "yes");
    feed.deliver(&message);
    assert_eq!(running.next().await.ending, parked(Reason::Failed));
    feed.deliver(&Payment::new("p1", 7).message());
    assert_eq!(running.next().await.ending, Ending::Applied);
    let conn = &mut C::connection(&database);
    inbox::testing::pass_time(conn, BILLING, HOUR).expect("passes");
    assert_eq!(running.next().await.ending, Ending::Duplicate);
    assert_eq!((C::credits(conn, "a"), C::parked(conn)), (vec![7], vec![]));
    assert_eq!(C::stored(conn, "p1").map(|row| row.duplicates), Some(1));
    running.stop().await;
}

async fn a_retry_whose_message_was_taken_away_leaves_nothing<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let builder = deciding(C::pool(&database), &feed, move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        Err(Failure::retry_after(HOUR, "later"))
    });
    let mut running = Running::start(builder);
    feed.deliver(&Payment::new("p1", 7).message());
    assert_eq!(running.next().await.ending, parked(Reason::Failed));
    running.stop().await;
    // The next one would apply it, if its message were not taken away between its start and its end.
    let (entered, go) = (Arc::new(Semaphore::new(0)), Arc::new(Barrier::new(2)));
    let (enter, gone) = (entered.clone(), go.clone());
    let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(Feed::new()), "q")
        .handler(Stopping { enter, gone })
        .settings(quick());
    let mut running = Running::start(builder);
    let conn = &mut C::connection(&database);
    inbox::testing::pass_time(conn, BILLING, HOUR).expect("passes");
    entered.acquire().await.expect("open").forget();
    conn.batch_execute("DELETE FROM inbox_parked").expect("takes it away");
    tokio::task::spawn_blocking(move || go.wait()).await.expect("no panic");
    assert_eq!(running.next().await.ending, Ending::Overtaken);
    assert_eq!((C::credits(conn, "a"), C::stored(conn, "p1")), (vec![], None));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    running.stop().await;
}

/// Waits outside the transaction: on SQLite nobody else could write inside it.
struct Stopping {
    enter: Arc<Semaphore>,
    gone: Arc<Barrier>,
}

impl<C: Store> inbox::Handler<C> for Stopping {
    const ON_REPLAY: inbox::OnReplay = ReplaySafe;
    type Event = Payment;
    type Prepared = ();
    type Receipt = ();

    async fn prepare(&self, _: &Payment, _: &Context<'_>) -> Result<(), Failure> {
        self.enter.add_permits(1);
        let gone = self.gone.clone();
        tokio::task::spawn_blocking(move || gone.wait()).await?;
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

async fn each_due_message_goes_to_one_of_several_inboxes<C: Store>() {
    const MESSAGES: usize = 60;
    let (database, feed) = (C::database(), Feed::new());
    let mut running = Running::start(deciding(C::pool(&database), &feed, |_, _| {
        Err(Failure::retry_after(HOUR, "closed"))
    }));
    for number in 0..MESSAGES {
        feed.deliver(&Payment::new(&format!("p{number}"), 1).message());
    }
    assert_eq!(running.endings(MESSAGES).await, [parked(Reason::Failed); MESSAGES]);
    running.stop().await;
    let runs = Arc::new(AtomicU32::new(0));
    let mut inboxes: Vec<_> = (0..3)
        .map(|_| {
            let counted = runs.clone();
            let builder = deciding(C::pool(&database), &Feed::new(), move |_, _| {
                counted.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            Running::start(builder)
        })
        .collect();
    let conn = &mut C::connection(&database);
    inbox::testing::pass_time(conn, BILLING, HOUR).expect("passes");
    let [one, two, three] = &mut inboxes[..] else { panic!("three") };
    for _ in 0..MESSAGES {
        let told = tokio::select! {
            told = one.next() => told,
            told = two.next() => told,
            told = three.next() => told,
        };
        assert_eq!(told.ending, Ending::Applied);
    }
    for inbox in inboxes {
        assert_eq!(inbox.stop().await, []);
    }
    assert_eq!((C::credits(conn, "a").len(), C::parked(conn)), (MESSAGES, vec![]));
    assert_eq!(runs.load(Ordering::SeqCst), MESSAGES as u32);
}

async fn a_repeat_of_what_waits_changes_nothing<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let mut running =
        Running::start(deciding(C::pool(&database), &feed, |payment, _| {
            match payment.payment.as_str() {
                "odd" => Err(Failure::review("odd")),
                _ => Err(Failure::retry_after(HOUR, "closed")),
            }
        }));
    let (odd, late) = (Payment::new("odd", 1).message(), Payment::new("late", 2).message());
    for message in [&odd, &late, &odd, &late] {
        feed.deliver(message);
        running.next().await;
    }
    let conn = &mut C::connection(&database);
    let rows = C::parked(conn);
    let seen: Vec<_> = rows.iter().map(|row| (row.state, row.deliveries, row.attempts)).collect();
    assert_eq!(seen, [(ParkedState::Review, 2, 1), (ParkedState::Retry, 2, 1)]);
    running.stop().await;
}
