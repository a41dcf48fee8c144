//! A business table with a unique constraint of its own: two operations that want the same row.

use std::sync::Arc;
use std::time::Duration;

use inbox::{Builder, Context, Ending, Failure, Inbox, Reason, ReplaySafe, Settings};
use support::database::Database;
use support::feed::Feed;
use support::http::Shopping;
use support::inbox::{BILLING, Payment, Running, parked};

use super::on_both;

on_both!(
    a_violated_constraint_is_retried_like_any_error_until_a_person_is_asked,
    what_finds_its_row_taken_says_so_and_is_kept_as_stale,
);

/// One invoice per account; the handler's second half comes behind it.
fn invoicing<C: Shopping>(database: &Database, feed: &Feed, insert: &'static str) -> Builder<C> {
    let table = "CREATE TABLE invoices (account text PRIMARY KEY)";
    C::execute(&mut C::connection(database), table).expect("a table");
    let mut settings = Settings::default();
    settings.max_attempts = 2;
    (settings.backoff, settings.backoff_max) = (Duration::from_millis(1), Duration::from_millis(1));
    settings.retry_poll = Duration::from_millis(20);
    Inbox::new(BILLING, C::pool(database), Arc::new(feed.clone()), "q").settings(settings).on(
        ReplaySafe,
        move |tx: &mut C, payment: &Payment, context: &Context<'_>| {
            if C::execute(tx, insert)? == 0 {
                context.mark_stale();
                return Ok(());
            }
            C::credit(tx, &payment.account, payment.cents)?;
            Ok::<_, Failure>(())
        },
    )
}

fn deliver_two(feed: &Feed) {
    for payment in ["p1", "p2"] {
        feed.deliver(&Payment::new(payment, 5).message());
    }
}

async fn a_violated_constraint_is_retried_like_any_error_until_a_person_is_asked<C: Shopping>() {
    let (database, feed) = (C::database(), Feed::new());
    let insert = "INSERT INTO invoices VALUES ('a')";
    let mut running = Running::start(invoicing::<C>(&database, &feed, insert));
    deliver_two(&feed);
    let expected = [Ending::Applied, parked(Reason::Exhausted), parked(Reason::Failed)];
    assert_eq!(running.endings(3).await, expected);
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "a"), [5]);
    let rows = C::parked(conn);
    assert!(rows[0].detail.to_lowercase().contains("unique"), "{}", rows[0].detail);
    running.stop().await;
}

async fn what_finds_its_row_taken_says_so_and_is_kept_as_stale<C: Shopping>() {
    let (database, feed) = (C::database(), Feed::new());
    let insert = "INSERT INTO invoices VALUES ('a') ON CONFLICT (account) DO NOTHING";
    let mut running = Running::start(invoicing::<C>(&database, &feed, insert));
    deliver_two(&feed);
    assert_eq!(running.endings(2).await, [Ending::Applied, Ending::Stale]);
    deliver_two(&feed);
    assert_eq!(running.endings(2).await, [Ending::Duplicate; 2]);
    let conn = &mut C::connection(&database);
    assert_eq!((C::credits(conn, "a"), C::parked(conn)), (vec![5], vec![]));
    running.stop().await;
}
