//! Decisions about parked messages of one ordering key.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use inbox::admin::{self, AdminError, Selection};
use inbox::{Ending, Failure, ParkedState};
use support::feed::Feed;
use support::inbox::{Running, Store};

use super::administered::{deciding, order, payment};
use super::on_both;

on_both!(
    a_later_one_of_a_key_is_not_retried_before_the_first,
    a_discarded_message_is_gone_and_the_next_of_its_key_goes_on,
);

/// An ordered consumer whose `a1` waits for a person, with `a2` and `a3` behind it.
pub(super) async fn with_a_key_blocked<C: Store>(
    database: &support::database::Database,
    running: &mut Running,
    feed: &Feed,
) -> [i64; 3] {
    for payment_id in ["a1", "a2", "a3"] {
        feed.deliver(&payment("a", payment_id));
        running.next().await;
    }
    let rows = admin::list(&mut C::connection(database), &Selection::default()).expect("lists");
    let states: Vec<_> = rows.iter().map(|row| row.state).collect();
    assert_eq!(states, [ParkedState::Review, ParkedState::Behind, ParkedState::Behind]);
    [rows[0].id, rows[1].id, rows[2].id]
}

type Log = Arc<Mutex<Vec<String>>>;

/// Starts an ordered consumer that wants `a1` reviewed until told otherwise.
pub(super) fn ordered<C: Store>(
    database: &support::database::Database,
    feed: &Feed,
) -> (Running, Log, Arc<AtomicBool>) {
    let (log, sound) = (Log::default(), Arc::new(AtomicBool::new(false)));
    let (logged, allowed) = (log.clone(), sound.clone());
    let builder = deciding::<C>(database, feed, move |payment, _| {
        if payment.payment == "a1" && !allowed.load(Ordering::SeqCst) {
            return Err(Failure::review("odd"));
        }
        logged.lock().unwrap().push(payment.payment.clone());
        Ok(())
    });
    (Running::start(builder.ordered()), log, sound)
}

async fn a_later_one_of_a_key_is_not_retried_before_the_first<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let (mut running, log, sound) = ordered::<C>(&database, &feed);
    let [first, second, third] = with_a_key_blocked::<C>(&database, &mut running, &feed).await;
    let conn = &mut C::connection(&database);
    for later in [second, third] {
        let error = admin::retry(conn, later, &order()).expect_err("it waits");
        assert!(
            matches!(&error, AdminError::Behind { id, head, key }
                if (*id, *head, key.as_str()) == (later, first, "a")),
            "{error}"
        );
    }
    assert_eq!(admin::audit(conn, 10).expect("reads"), []);
    sound.store(true, Ordering::SeqCst);
    admin::retry(conn, first, &order()).expect("retries");
    assert_eq!(running.endings(3).await, [Ending::Applied; 3]);
    assert_eq!(*log.lock().unwrap(), ["a1", "a2", "a3"]);
    running.stop().await;
}

async fn a_discarded_message_is_gone_and_the_next_of_its_key_goes_on<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let (mut running, log, _) = ordered::<C>(&database, &feed);
    let [first, _, _] = with_a_key_blocked::<C>(&database, &mut running, &feed).await;
    // Stopped, so that the look for what waits behind nothing is not what helps.
    running.stop().await;
    let conn = &mut C::connection(&database);
    admin::discard(conn, first, &order()).expect("discards");
    let rows = admin::list(conn, &Selection::default()).expect("lists");
    let states: Vec<_> = rows.iter().map(|row| row.state).collect();
    assert_eq!(states, [ParkedState::Retry, ParkedState::Behind]);
    let entry = admin::audit(conn, 10).expect("reads").remove(0);
    assert_eq!(entry.action, "parked.discard");
    assert!(entry.detail.contains("\"a1\""), "{}", entry.detail);
    let (mut running, later, _) = ordered::<C>(&database, &Feed::new());
    assert_eq!(running.endings(2).await, [Ending::Applied; 2]);
    assert_eq!(
        (log.lock().unwrap().len(), &later.lock().unwrap()[..]),
        (0, &["a2".to_owned(), "a3".to_owned()][..])
    );
    running.stop().await;
}
