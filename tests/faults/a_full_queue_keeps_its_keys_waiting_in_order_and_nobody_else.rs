//! A queue is full and rejects: its keys wait, all others go on. When there is room again, little by
//! little, the waiting messages arrive in the order of their key, each once.

use support::broker::{Corner, rabbitmq};
use support::eventually;
use support::flow::{Arrived, Flow};
use support::services::amqp_url;
use transport::{ExchangeKind, Overflow, QueueKind};

const ROOM: u32 = 7;
const BATCHES: usize = 60;

async fn with_room_for_some(kind: QueueKind) {
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("facts", ExchangeKind::Direct).await;
    let queue = corner.queue("facts").await;
    corner.bind(&exchange, &queue, "ok").await;
    let full = corner
        .queue_with("full", |queue| {
            queue.kind = kind;
            queue.max_length = Some(ROOM);
            queue.overflow = Overflow::RejectPublish;
        })
        .await;
    corner.bind(&exchange, &full, "full").await;
    let mut flow = Flow::new();
    let relay = flow.relay(&amqp_url());

    for _ in 0..2 {
        flow.commit("good", 20, 1_000, |draft| draft.exchange(&exchange).routing_key("ok"));
        // Ten of each key: some of a key find room and some do not.
        flow.commit("full", 8, 80, |draft| draft.exchange(&exchange).routing_key("full"));
        flow.commit("good", 20, 1_000, |draft| draft.exchange(&exchange).routing_key("ok"));
        flow.passed().await;
    }
    let mut arrived = Arrived::new();
    arrived.until(&corner.broker, &queue, &flow.committed("good")).await;
    assert_eq!(arrived.repeats, 0, "others go on");

    let held = flow.held();
    assert!(!held.is_empty() && held.len() <= 160, "{}", held.len());
    assert!(held.iter().any(|held| held.reason == "nacked"), "{held:?}");
    for held in &held {
        assert!(["nacked", "behind", "released"].contains(&&*held.reason), "{held:?}");
        assert_eq!(held.state, "waiting", "{held:?}");
        assert!(held.ordering_key.as_ref().is_some_and(|key| key.starts_with("full-")), "{held:?}");
    }

    // Room comes and goes while more is published. Of keys that nothing holds back yet, a whole run
    // is on its way, of which some find room and some do not.
    let mut expected = flow.committed("full");
    for key in (0..BATCHES).flat_map(|batch| (0..8).map(move |n| format!("full-{batch}-{n}"))) {
        expected.insert(key, 5);
    }
    let (taken_from, until) = (full.clone(), expected.clone());
    let consuming = tokio::spawn(async move {
        let mut arrived = Arrived::new();
        arrived.until(&rabbitmq(), &taken_from, &until).await;
        arrived
    });
    for batch in 0..BATCHES {
        let name = format!("full-{batch}");
        flow.commit(&name, 8, 40, |draft| draft.exchange(&exchange).routing_key("full"));
    }
    let mut arrived = consuming.await.expect("arrives, in order");
    flow.published().await;
    relay.stop().await;
    arrived.drain(&corner.broker, &full).await;
    assert_eq!(arrived.repeats, 0, "a nack is a clear answer: nothing is sent twice");
    eventually("the queue is empty", async || corner.depth(&full).await == 0).await;
    corner.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_classic_queue() {
    with_room_for_some(QueueKind::Classic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_quorum_queue() {
    with_room_for_some(QueueKind::Quorum).await;
}
