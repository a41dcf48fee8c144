//! Several deliveries in one transaction, and that nobody notices but the clock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use inbox::{
    Context, DuplicateKind, Ending, Failure, Inbox, ParkedState, Reason, ReplaySafe, Settings,
};
use support::feed::{Answer, Feed};
use support::inbox::{BILLING, Payment, Running, Store, crediting, parked};

use super::on_both;

on_both!(
    a_batch_commits_whole_before_its_answer,
    a_failing_delivery_takes_none_of_its_neighbours_with_it,
    a_panicking_delivery_takes_none_of_its_neighbours_with_it,
    repeats_and_conflicts_within_a_batch_are_answered_each,
    a_stale_delivery_of_a_batch_is_kept_as_such,
    a_batch_keeps_the_order_of_each_key,
    what_has_to_wait_is_left_out_of_the_batch,
    redelivered_messages_go_alone,
    an_observer_that_panics_costs_nothing_but_its_word,
);

fn batches_of(size: usize) -> Settings {
    let mut settings = Settings::default();
    settings.concurrency = 1;
    settings.batch = size;
    settings
}

async fn a_batch_commits_whole_before_its_answer<C: Store>() {
    const MESSAGES: usize = 24;
    let (database, feed) = (C::database(), Feed::new());
    // What is committed at the moment of each answer.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (looking, looks) = (Mutex::new(C::connection(&database)), seen.clone());
    feed.witness(move |number, _| {
        looks.lock().unwrap().push((number, C::credits(&mut looking.lock().unwrap(), "a").len()));
    });
    let numbers: Vec<u64> = (0..MESSAGES)
        .map(|number| feed.deliver(&Payment::new(&format!("p{number}"), 1).message()))
        .collect();
    let builder = crediting::<C>(C::pool(&database), Arc::new(feed.clone()), "q");
    let mut running = Running::start(builder.settings(batches_of(8)));
    assert_eq!(running.endings(MESSAGES).await, [Ending::Applied; MESSAGES]);
    assert!(numbers.iter().all(|number| feed.answer(*number) == Some(Answer::Ack)));
    // The receiver hands on as they come, so the first batch may be smaller than what waits.
    let seen = seen.lock().unwrap().clone();
    assert!(seen.iter().all(|(number, credits)| *credits > *number as usize));
    assert!(seen.iter().any(|(number, credits)| *credits > *number as usize + 1), "{seen:?}");
    let conn = &mut C::connection(&database);
    let results = (0..MESSAGES).map(|number| C::stored(conn, &format!("p{number}")));
    for (number, stored) in results.enumerate() {
        let stored = stored.expect("claimed");
        assert_eq!(stored.result, Some(format!("\"receipt for p{number}\"")));
        assert!(stored.finished_at.expect("finished") >= stored.applied_at);
    }
    running.stop().await;
}

/// Twelve deliveries of which one fails once: how each handler ran and what is left.
async fn spoiled<C: Store>(spoil: impl Fn() -> Result<(), Failure> + Send + Sync + 'static) {
    const MESSAGES: usize = 12;
    let (database, feed) = (C::database(), Feed::new());
    let mut settings = batches_of(MESSAGES);
    settings.backoff = std::time::Duration::from_millis(1);
    let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q")
        .on(ReplaySafe, move |tx: &mut C, payment: &Payment, context: &Context<'_>| {
            C::credit(tx, &payment.account, payment.cents)?;
            if payment.payment == "p5" && context.attempt() == 1 { spoil() } else { Ok(()) }
        })
        .settings(settings);
    let numbers: Vec<u64> = (0..MESSAGES)
        .map(|number| feed.deliver(&Payment::new(&format!("p{number}"), 1).message()))
        .collect();
    let mut running = Running::start(builder);
    let mut endings = running.endings(MESSAGES + 1).await;
    endings.retain(|ending| *ending != Ending::Applied);
    assert_eq!(endings, [parked(Reason::Failed)]);
    assert!(numbers.iter().all(|number| feed.answer(*number) == Some(Answer::Ack)));
    let conn = &mut C::connection(&database);
    assert_eq!((C::credits(conn, "a").len(), C::parked(conn)), (MESSAGES, vec![]));
    running.stop().await;
}

async fn a_failing_delivery_takes_none_of_its_neighbours_with_it<C: Store>() {
    spoiled::<C>(|| Err(Failure::retry("not yet"))).await;
}

async fn a_panicking_delivery_takes_none_of_its_neighbours_with_it<C: Store>() {
    spoiled::<C>(|| panic!("in a batch")).await;
}

async fn repeats_and_conflicts_within_a_batch_are_answered_each<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let known = Payment::new("known", 1);
    let builder = || crediting::<C>(C::pool(&database), Arc::new(feed.clone()), "q");
    feed.deliver(&known.message());
    let mut running = Running::start(builder());
    assert_eq!(running.next().await.ending, Ending::Applied);
    running.stop().await;

    let twice = Payment::new("twice", 2).message();
    feed.deliver(&known.message());
    feed.deliver(&twice);
    feed.deliver(&Payment::new("known", 9).message());
    feed.deliver(&twice);
    feed.deliver(&Payment::new("once", 3).message());
    let mut running = Running::start(builder().settings(batches_of(16)));
    let mut endings = Vec::new();
    for _ in 0..5 {
        endings.push(running.next().await.ending);
    }
    let (applied, conflict) = (Ending::Applied, parked(Reason::Conflict));
    assert_eq!(endings, [Ending::Duplicate, applied, conflict, Ending::Duplicate, applied]);
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "a"), [1, 2, 3]);
    let counts = C::stored(conn, "known").map(|row| (row.duplicates, row.conflicts));
    assert_eq!(counts, Some((1, 1)));
    let twice = C::stored(conn, "twice").expect("claimed");
    assert_eq!(twice.duplicates_of(DuplicateKind::SameMessage), 1);
    running.stop().await;
}

async fn a_stale_delivery_of_a_batch_is_kept_as_such<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q")
        .on(ReplaySafe, |_: &mut C, payment: &Payment, context: &Context<'_>| {
            if payment.payment == "old" {
                context.mark_stale();
            }
            Ok(())
        })
        .settings(batches_of(4));
    for payment in ["new", "old", "newer"] {
        feed.deliver(&Payment::new(payment, 1).message());
    }
    let mut running = Running::start(builder);
    assert_eq!(running.endings(3).await, [Ending::Applied, Ending::Applied, Ending::Stale]);
    let conn = &mut C::connection(&database);
    let verdict = |conn: &mut C, payment| C::stored(conn, payment).map(|row| row.verdict);
    assert_eq!(verdict(conn, "old"), Some(inbox::OperationVerdict::Stale));
    assert_eq!(verdict(conn, "new"), Some(inbox::OperationVerdict::Applied));
    running.stop().await;
}

fn keyed(key: &str, payment: &str, cents: i64) -> message::Message {
    let mut message = Payment { account: key.to_owned(), ..Payment::new(payment, cents) }.message();
    message.ordering_key = Some(key.to_owned());
    message
}

async fn a_batch_keeps_the_order_of_each_key<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let mut settings = batches_of(16);
    settings.concurrency = 3;
    settings.ordered = true;
    for number in 0..40 {
        for key in ["a", "b", "c", "d"] {
            feed.deliver(&keyed(key, &format!("{key}{number}"), number));
        }
    }
    let builder = crediting::<C>(C::pool(&database), Arc::new(feed.clone()), "q");
    let mut running = Running::start(builder.settings(settings));
    assert_eq!(running.endings(160).await, [Ending::Applied; 160]);
    let conn = &mut C::connection(&database);
    for key in ["a", "b", "c", "d"] {
        assert_eq!(C::credits(conn, key), (0..40).collect::<Vec<i64>>());
    }
    running.stop().await;
}

async fn what_has_to_wait_is_left_out_of_the_batch<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let mut settings = batches_of(16);
    settings.ordered = true;
    let builder = || {
        let counted = counted.clone();
        Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q")
            .on(ReplaySafe, move |tx: &mut C, payment: &Payment, _: &Context<'_>| {
                if payment.payment == "a0" {
                    return Err(Failure::review("odd"));
                }
                counted.fetch_add(1, Ordering::SeqCst);
                Ok(C::credit(tx, &payment.account, payment.cents)?)
            })
            .settings(settings.clone())
    };
    let mut running = Running::start(builder());
    feed.deliver(&keyed("a", "a0", 0));
    assert_eq!(running.next().await.ending, parked(Reason::Review));
    running.stop().await;
    for (key, payment) in [("b", "b1"), ("a", "a1"), ("b", "b2"), ("a", "a2"), ("c", "c1")] {
        feed.deliver(&keyed(key, payment, 1));
    }
    let mut running = Running::start(builder());
    let behind = parked(Reason::Behind);
    let (applied, endings) = (Ending::Applied, running.endings(5).await);
    assert_eq!(endings, [applied, applied, applied, behind, behind]);
    let conn = &mut C::connection(&database);
    assert_eq!((C::credits(conn, "b").len(), C::credits(conn, "a").len()), (2, 0));
    let waiting: Vec<_> = C::parked(conn).iter().map(|row| row.state).collect();
    assert_eq!(waiting, [ParkedState::Review, ParkedState::Behind, ParkedState::Behind]);
    assert_eq!(runs.load(Ordering::SeqCst), 3, "a batch was undone for them");
    running.stop().await;
}

async fn redelivered_messages_go_alone<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let builder = crediting::<C>(C::pool(&database), Arc::new(feed.clone()), "q");
    for number in 0..6 {
        let message = Payment::new(&format!("p{number}"), 1).message();
        feed.deliver_raw(|delivery| {
            delivery.message_id = Some(message.id.to_string());
            delivery.kind = Some(message.kind.clone());
            delivery.headers.insert(message::name::OPERATION, message.operation.clone());
            delivery.payload = message.payload.clone();
            delivery.redelivered = number % 2 == 0;
        });
    }
    let mut running = Running::start(builder.settings(batches_of(8)));
    assert_eq!(running.endings(6).await, [Ending::Applied; 6]);
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "a").len(), 6);
    // Their starts are forgotten with their commits.
    assert_eq!(C::starts(conn), 0);
    running.stop().await;
}

async fn an_observer_that_panics_costs_nothing_but_its_word<C: Store>() {
    const MESSAGES: usize = 12;
    let (database, feed) = (C::database(), Feed::new());
    let numbers: Vec<u64> = (0..MESSAGES)
        .map(|number| feed.deliver(&Payment::new(&format!("p{number}"), 1).message()))
        .collect();
    let told = Arc::new(AtomicU32::new(0));
    let (counted, all) = (told.clone(), Arc::new(tokio::sync::Notify::new()));
    let done = all.clone();
    let inbox = crediting::<C>(C::pool(&database), Arc::new(feed.clone()), "q")
        .settings(batches_of(8))
        .observe(move |_| {
            if counted.fetch_add(1, Ordering::SeqCst) + 1 == MESSAGES as u32 {
                done.notify_one();
            }
            panic!("in the observer");
        })
        .build()
        .expect("builds");
    inbox.run(all.notified()).await.expect("stops well");
    assert!(numbers.iter().all(|number| feed.answer(*number) == Some(Answer::Ack)));
    assert_eq!(C::credits(&mut C::connection(&database), "a").len(), MESSAGES);
}
