//! The purge that a relay does by its setting `retention`. Its batches are small and of a size that none of
//! the right results is a multiple of: a purge that goes too far is never seen at them.

use std::time::Duration;

use outbox::admin::{NewCursor, Order, Start};
use outbox::reader::{Advance, Claim, Filter, ReadLimit};
use tokio::sync::oneshot;

use super::{Path, Store};

const EVERYTHING: Filter = Filter { kinds: None, exchanges: None };

/// Runs a relay with a retention of an hour until so many rows are left, and then to its end.
async fn purged<C: Store>(path: &Path<C>, left: i64) {
    let mut settings = Path::<C>::settings();
    settings.retention = Some(Duration::from_secs(3600));
    settings.purge_rows = 7;
    let relay = path.relay_with(settings);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(async move { relay.run(async { drop(stopped.await) }).await });
    support::eventually("the old ones are gone", async || {
        path.count("outbox_messages").await == left
    })
    .await;
    stop.send(()).expect("runs");
    support::bounded(running).await.expect("ends").expect("stops");
    assert_eq!(path.count("outbox_messages").await, left, "and no more than they");
}

async fn what_is_old_and_handed_on_goes_batch_by_batch<C: Store>() {
    let path = Path::<C>::new().await;
    path.enqueue_facts("a", 1..=40).await;
    path.sql(C::OLDER).await;
    path.enqueue_facts("b", 1..=15).await;
    path.run_once().await;
    assert_eq!(path.count("outbox_messages").await, 55, "without a retention nothing goes");
    purged(&path, 15).await;
    assert_eq!(path.count("outbox_messages WHERE ordering_key = 'b'").await, 15);
    assert_eq!(path.published().len(), 55);
}

async fn what_is_not_handed_on_stays_however_old<C: Store>() {
    let path = Path::<C>::new().await;
    path.enqueue_facts("a", 1..=40).await;
    path.run_once().await;
    path.sql("UPDATE outbox_cursors SET paused_at = created_at, pause_reason = 'as told'").await;
    path.enqueue_facts("b", 1..=15).await;
    path.sql(C::OLDER).await;
    purged(&path, 15).await;
    path.sql("UPDATE outbox_cursors SET paused_at = NULL, pause_reason = NULL").await;
    path.run_once().await;
    assert_eq!(path.published().len(), 55, "all of them were there to be sent");
}

async fn the_slower_of_two_cursors_decides<C: Store>() {
    let path = Path::<C>::new().await;
    let slow = NewCursor { name: "slow".into(), filter: EVERYTHING, start: Start::Beginning };
    let order = Order::new("me", "test");
    path.db.call(move |conn| conn.add_cursor(&slow, &order)).await.expect("adds");
    path.enqueue_facts("a", 1..=40).await;
    path.run_once().await;
    path.sql(C::OLDER).await;
    // It has handed on 25 of 40.
    let moved = path.db.call(|conn| {
        let claim = conn.claim("slow", "me", Duration::from_secs(60))?;
        let Claim::Taken(lease, position) = claim else { panic!("free") };
        let limit = ReadLimit { rows: 25, bytes: 1 << 20 };
        let chunk = conn.read(&position, &EVERYTHING, limit)?;
        conn.advance(&lease, &chunk.next, &[])
    });
    assert_eq!(moved.await.expect("advances"), Advance::Done);
    purged(&path, 15).await;
    let order = Order::new("me", "test");
    path.db.call(move |conn| conn.retire_cursor("slow", true, &order)).await.expect("retires");
    purged(&path, 0).await;
}

on_every_store!(
    what_is_old_and_handed_on_goes_batch_by_batch,
    what_is_not_handed_on_stays_however_old,
    the_slower_of_two_cursors_decides,
);
