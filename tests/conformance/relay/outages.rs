//! Brokers that go away, leases, and the relay's own start and stop.

use std::collections::HashSet;
use std::time::Duration;

use outbox::Draft;
use outbox::reader::Claim;
use relay::{Drained, RelayError};
use support::events::Fact;
use tokio::sync::oneshot;

use super::{Path, Store};

async fn an_unavailable_broker_costs_no_attempt<C: Store>() {
    let path = Path::<C>::new().await;
    path.enqueue_facts("a", 1..=5).await;
    path.broker.disconnect();
    let error = path.relay().run_once().await.expect_err("unavailable");
    assert!(matches!(error, RelayError::Unavailable(_)), "{error}");
    path.broker.reconnect();
    path.broker.fail_next_publishes(1);
    let error = path.relay().run_once().await.expect_err("unavailable");
    assert!(matches!(error, RelayError::Unavailable(_)), "{error}");
    assert_eq!(path.count("outbox_holds").await, 0);
    assert_eq!(path.run_once().await, Drained { confirmed: 5, held: 0 });
    assert_eq!(path.published(), ["a-1", "a-2", "a-3", "a-4", "a-5"]);
}

async fn lost_confirms_repeat_the_same_messages<C: Store>() {
    let path = Path::<C>::new().await;
    path.enqueue((1..=3).map(|n| Draft::of(&Fact::keyless(n))).collect()).await;
    path.broker.lose_confirms(1);
    path.relay().run_once().await.expect_err("unavailable");
    let before: Vec<_> = path.broker.published().into_iter().map(|message| message.id).collect();
    assert!(!before.is_empty());
    assert_eq!(path.run_once().await, Drained { confirmed: 3, held: 0 });
    let all: Vec<_> = path.broker.published().into_iter().map(|message| message.id).collect();
    assert_eq!(all.len(), before.len() + 3);
    assert!(before.iter().all(|id| all[before.len()..].contains(id)), "the same ids again");
}

async fn a_delayed_message_comes_when_it_is_due<C: Store>() {
    let path = Path::<C>::new().await;
    let hour = Duration::from_secs(3600);
    path.enqueue(vec![
        Draft::of(&Fact::of("a", 1)).deliver_after(hour),
        Draft::of(&Fact::of("a", 2)),
    ])
    .await;
    assert_eq!(path.run_once().await, Drained { confirmed: 1, held: 1 });
    assert_eq!(path.published(), ["a-2"]);
    path.sql("UPDATE outbox_holds SET not_before = held_at").await;
    path.run_once().await;
    assert_eq!(path.published(), ["a-2", "a-1"]);
}

async fn two_relays_do_not_work_one_cursor<C: Store>() {
    let path = Path::<C>::new().await;
    let claim = path
        .db
        .call(|conn| conn.claim("relay", "another", Duration::from_secs(60)))
        .await
        .expect("claims");
    let Claim::Taken(lease, _) = claim else { panic!("held") };
    let error = path.relay().run_once().await.expect_err("held");
    assert!(matches!(&error, RelayError::Held { owner, .. } if owner == "another"), "{error}");
    let released = path.db.call(move |conn| conn.release(&lease)).await.expect("writes");
    assert_eq!(released, outbox::reader::Advance::Done);
    path.enqueue_facts("a", 1..=1).await;
    assert_eq!(path.run_once().await, Drained { confirmed: 1, held: 0 });
}

async fn a_holder_that_lost_its_lease_advances_nothing<C: Store>() {
    let path = Path::<C>::new().await;
    path.enqueue_facts("a", 1..=1).await;
    // While the broker judges the message, another relay takes the cursor.
    let db = path.db.clone();
    let runtime = tokio::runtime::Handle::current();
    path.broker.script(move |_| {
        let db = db.clone();
        let steal = async move {
            db.call(|conn| {
                conn.batch_execute("UPDATE outbox_cursors SET epoch = epoch + 1, owner = 'thief'")
            })
            .await
        };
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(steal)).join().expect("ends"))
            .expect("steals");
        None
    });
    let error = path.relay().run_once().await.expect_err("lost");
    assert!(matches!(error, RelayError::LeaseLost { .. }), "{error}");
    let pending = path.db.call(|conn| conn.pending("relay")).await.expect("counts");
    assert_eq!(pending, 1, "the successor has it still to do");
}

async fn shutdown_settles_what_is_in_flight_and_gives_the_lease_up<C: Store>() {
    let path = Path::<C>::new().await;
    path.enqueue_facts("a", 1..=50).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let stop = std::sync::Mutex::new(Some(stop));
    // The first message to arrive asks for the shutdown.
    path.broker.script(move |_| {
        drop(stop.lock().expect("whole").take());
        None
    });
    let relay = path.relay();
    support::bounded(relay.run(async { drop(stopped.await) })).await.expect("stops");
    let pending = path.db.call(|conn| conn.pending("relay")).await.expect("counts");
    assert_eq!(
        path.broker.depth("all") as i64 + pending,
        50,
        "what was published is behind the cursor"
    );
    let claim = path
        .db
        .call(|conn| conn.claim("relay", "next", Duration::from_secs(1)))
        .await
        .expect("claims");
    assert!(matches!(claim, Claim::Taken(..)), "{claim:?}");
}

async fn a_running_relay_outlives_the_broker<C: Store>() {
    let path = Path::<C>::new().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = path.relay();
    let running = tokio::spawn(async move { relay.run(async { drop(stopped.await) }).await });
    for round in 0..3 {
        path.enqueue_facts("a", round * 10 + 1..=round * 10 + 10).await;
        let expected = round as usize * 11 + 10;
        support::eventually("the round has arrived", async || path.broker.depth("all") >= expected)
            .await;
        path.broker.disconnect();
        path.enqueue_facts("b", round..=round).await;
        path.broker.reconnect();
    }
    support::eventually("all is settled", async || {
        path.db.call(|conn| conn.pending("relay")).await.is_ok_and(|pending| pending == 0)
    })
    .await;
    stop.send(()).expect("runs");
    support::bounded(running).await.expect("ends").expect("stops");
    // What was not settled when the broker went was sent again, as it must be.
    let mut seen = HashSet::new();
    let mut arrived = path.published();
    arrived.retain(|fact| seen.insert(fact.clone()));
    for (key, numbers) in [("a", 1..=30), ("b", 0..=2)] {
        let of_key = arrived.iter().filter(|fact| fact.starts_with(key));
        assert!(of_key.cloned().eq(numbers.map(|n| format!("{key}-{n}"))), "{arrived:?}");
    }
    assert_eq!(path.count("outbox_holds").await, 0);
}

async fn a_schema_that_is_not_there_is_named<C: Store>() {
    let path = Path::<C>::new().await;
    path.db
        .call(|conn| Ok::<_, migrations::MigrationFailed>(migrations::revert_all(conn)?.len()))
        .await
        .expect("reverts");
    let error = path.relay().run(std::future::pending()).await.expect_err("refused");
    assert!(matches!(error, RelayError::Schema(migrations::SchemaError::Missing)), "{error}");
}

on_every_store!(
    an_unavailable_broker_costs_no_attempt,
    lost_confirms_repeat_the_same_messages,
    a_delayed_message_comes_when_it_is_due,
    two_relays_do_not_work_one_cursor,
    a_holder_that_lost_its_lease_advances_nothing,
    shutdown_settles_what_is_in_flight_and_gives_the_lease_up,
    a_running_relay_outlives_the_broker,
    a_schema_that_is_not_there_is_named,
);
