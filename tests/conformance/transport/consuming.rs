use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use message::{Message, name};
use support::broker::{drain, message, operation};
use transport::{ExchangeKind, Publisher as _, Subscriber as _, Topology as _, Unavailable};

use super::Harness;

pub(super) fn numbered(exchange: &str, count: usize) -> Vec<Message> {
    (0..count).map(|i| message(exchange, "ok", i)).collect()
}

pub(super) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}

/// `text` again and again, as often as 255 bytes hold it.
fn longest(text: &str) -> String {
    let mut long = text.repeat(255);
    long.truncate((0..=255).rev().find(|end| long.is_char_boundary(*end)).unwrap_or(0));
    long
}

pub(crate) async fn every_property_and_header_arrives_as_sent(harness: &impl Harness) {
    let corner = harness.corner();
    let long_name = longest(&corner.name("exchange"));
    let exchange = corner.exchange_named(long_name, ExchangeKind::Fanout).await;
    let queue = corner.queue("queue").await;
    corner.bind(&exchange, &queue, "").await;

    let mut plain = message(&exchange, "", "plain");
    plain.payload = Bytes::new();
    let mut rich = message(&exchange, &longest("schlüssel."), "Größe 🧾 日本");
    rich.kind = longest("art.");
    rich.content_type = "text/plain; charset=\"latin-1\"".into();
    rich.ordering_key = Some(longest("🔑"));
    rich.payload = (0..=255).collect::<Vec<u8>>().repeat(1_000).into();
    for (header, value) in [
        (name::CORRELATION_ID, "conversation 7"),
        (name::CAUSATION_ID, "0190"),
        (name::FINGERPRINT, "ab"),
        (name::TRACEPARENT, "00-aa-bb-01"),
        ("tenant", "Łódź"),
        ("empty", ""),
        ("long", &"v".repeat(40_000)),
    ] {
        rich.headers.insert(header, value);
    }
    rich.headers.insert(longest("h"), "255 bytes of name");
    let sent = [plain, rich];
    corner.publish(&sent).await;

    let mut subscription = corner.broker.subscribe(&queue, 10).await.expect("subscribed");
    for message in &sent {
        let delivery = subscription.receive().await.expect("a delivery");
        assert_eq!(delivery.message_id, Some(message.id.to_string()));
        assert_eq!(delivery.kind.as_ref(), Some(&message.kind));
        assert_eq!(delivery.exchange, message.exchange);
        assert_eq!(delivery.routing_key, message.routing_key);
        assert_eq!(delivery.content_type.as_ref(), Some(&message.content_type));
        assert_eq!(delivery.payload, message.payload);
        let seconds =
            |at: SystemTime| at.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).ok();
        assert_eq!(delivery.timestamp.map(seconds), Some(seconds(message.created_at)));
        assert!(!delivery.redelivered);
        assert_eq!(delivery.operation_key(), Some(message.operation_key()));
        assert_eq!(delivery.ordering_key(), message.ordering_key.as_deref());
        let mut headers = message.headers.clone();
        headers.insert(name::OPERATION, message.operation.as_str());
        if let Some(key) = &message.ordering_key {
            headers.insert(name::ORDERING_KEY, key.as_str());
        }
        assert_eq!(delivery.headers, headers);
        delivery.acker.ack().await.expect("acknowledged");
    }
    drop(subscription);
    corner.clean().await;
}

pub(crate) async fn a_lane_keeps_its_order(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let mut lane = corner.broker.open_lane().await.expect("a lane");
    for batch in numbered(&exchange, 6_000).chunks(2_500) {
        lane.publish(batch).await.expect("settled");
    }
    let mut subscription = corner.broker.subscribe(&queue, 500).await.expect("subscribed");
    assert_eq!(drain(&mut *subscription, 6_000).await, numbers(0..6_000));
    drop((lane, subscription));
    corner.clean().await;
}

pub(crate) async fn a_dropped_subscription_gives_back_what_it_held(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    corner.publish(&numbered(&exchange, 4)).await;
    let mut subscription = corner.broker.subscribe(&queue, 10).await.expect("subscribed");
    let first = subscription.receive().await.expect("a delivery");
    first.acker.ack().await.expect("acknowledged");
    let held = subscription.receive().await.expect("a delivery");
    assert!(!held.redelivered);
    drop(subscription);

    let mut subscription = corner.broker.subscribe(&queue, 10).await.expect("subscribed");
    let again = subscription.receive().await.expect("a delivery");
    assert_eq!((operation(&again), again.redelivered), (operation(&held), true));
    again.acker.ack().await.expect("acknowledged");
    assert_eq!(drain(&mut *subscription, 2).await, ["2", "3"]);
    drop(subscription);
    corner.clean().await;
}

pub(crate) async fn one_answer_covers_all_that_came_before(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    corner.publish(&numbered(&exchange, 7)).await;
    let mut subscription = corner.broker.subscribe(&queue, 10).await.expect("subscribed");
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(subscription.receive().await.expect("a delivery"));
    }
    // One has its own answer, and one that came later none yet.
    held.remove(1).acker.ack().await.expect("acknowledged");
    let after = held.pop().expect("the sixth");
    held.pop().expect("the fifth").acker.ack_through().await.expect("acknowledged");
    assert_eq!(operation(&after), "5");
    drop((held, after, subscription));
    let mut subscription = corner.broker.subscribe(&queue, 10).await.expect("subscribed");
    assert_eq!(drain(&mut *subscription, 2).await, ["5", "6"]);
    assert_eq!(corner.depth(&queue).await, 0);
    drop(subscription);
    corner.clean().await;
}

pub(crate) async fn a_requeued_delivery_comes_again_marked(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    corner.publish(&numbered(&exchange, 5)).await;
    let mut subscription = corner.broker.subscribe(&queue, 3).await.expect("subscribed");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(subscription.receive().await.expect("a delivery"));
    }
    held.remove(1).acker.requeue().await.expect("given back");
    for delivery in held {
        delivery.acker.ack().await.expect("acknowledged");
    }
    // Where in the queue it comes back is the queue's business: a quorum queue puts it at the end.
    let mut arrived = Vec::new();
    for _ in 0..3 {
        let delivery = subscription.receive().await.expect("a delivery");
        arrived.push((operation(&delivery), delivery.redelivered));
        delivery.acker.ack().await.expect("acknowledged");
    }
    arrived.sort();
    assert_eq!(arrived, [("1".into(), true), ("3".into(), false), ("4".into(), false)]);
    drop(subscription);
    corner.clean().await;
}

pub(crate) async fn a_receive_given_up_loses_nothing(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let mut subscription = corner.broker.subscribe(&queue, 7).await.expect("subscribed");
    let publishing = async {
        let mut lane = corner.broker.open_lane().await.expect("a lane");
        for batch in numbered(&exchange, 300).chunks(10) {
            lane.publish(batch).await.expect("settled");
        }
    };
    let receiving = async {
        let mut operations = Vec::new();
        let mut given_up = 0;
        while operations.len() < 300 {
            // Polled once and dropped when not ready at once, in all states of arrival.
            let delivery = tokio::select! {
                biased;
                delivery = subscription.receive() => delivery.expect("a delivery"),
                () = std::future::ready(()) => {
                    given_up += 1;
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            operations.push(operation(&delivery));
            delivery.acker.ack().await.expect("acknowledged");
        }
        assert!(given_up > 0, "no receive was ever given up");
        operations
    };
    let (operations, ()) = tokio::join!(receiving, publishing);
    assert_eq!(operations, numbers(0..300));
    drop(subscription);
    corner.clean().await;
}

pub(crate) async fn an_answer_after_the_subscription_is_an_error(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    corner.publish(&numbered(&exchange, 1)).await;
    let mut subscription = corner.broker.subscribe(&queue, 1).await.expect("subscribed");
    let held = subscription.receive().await.expect("a delivery");
    drop(subscription);
    let mut next = corner.broker.subscribe(&queue, 1).await.expect("subscribed");
    let again = next.receive().await.expect("a delivery");
    let refused = held.acker.ack().await;
    assert!(matches!(refused, Err(Unavailable::Lost { .. })), "{refused:?}");
    // And it has not taken the delivery from the one who holds it now.
    again.acker.ack().await.expect("acknowledged");
    drop(next);
    corner.clean().await;
}

pub(crate) async fn a_deleted_queue_ends_its_subscription(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let mut subscription = corner.broker.subscribe(&queue, 1).await.expect("subscribed");
    let deleting = async {
        corner.broker.delete_queue(&queue).await.expect("deleted");
    };
    let (ended, ()) = tokio::join!(subscription.receive(), deleting);
    assert!(
        matches!(&ended, Err(Unavailable::NoQueue { queue: named, .. }) if *named == queue),
        "{ended:?}"
    );
    // A new queue of that name is not the old subscription's.
    corner.queue("queue").await;
    corner.bind(&exchange, &queue, "ok").await;
    corner.publish(&numbered(&exchange, 1)).await;
    let mut subscription = corner.broker.subscribe(&queue, 1).await.expect("subscribed");
    assert_eq!(drain(&mut *subscription, 1).await, ["0"]);
    drop(subscription);
    corner.clean().await;
}

pub(crate) async fn a_missing_queue_cannot_be_subscribed(harness: &impl Harness) {
    let corner = harness.corner();
    for missing in [corner.name("missing"), "q".repeat(256)] {
        let refused = corner.broker.subscribe(&missing, 1).await.err();
        assert!(
            matches!(&refused, Some(Unavailable::NoQueue { queue, .. }) if *queue == missing),
            "{refused:?}"
        );
    }
    corner.clean().await;
}
