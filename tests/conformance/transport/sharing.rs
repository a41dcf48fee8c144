//! What each of a queue's consumers gets, and what is left.

use std::time::Duration;

use futures_util::FutureExt;
use support::broker::{drain, message, operation};
use tokio::task::unconstrained;
use transport::{ExchangeKind, Subscriber as _};

use super::Harness;
use super::consuming::{numbered, numbers};

pub(crate) async fn prefetch_bounds_what_a_consumer_holds(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    corner.publish(&numbered(&exchange, 5)).await;
    let mut small = corner.broker.subscribe(&queue, 2).await.expect("subscribed");
    // 0 would be unlimited to RabbitMQ and is taken as 1.
    let mut smallest = corner.broker.subscribe(&queue, 0).await.expect("subscribed");
    let held = [
        small.receive().await.expect("a delivery"),
        small.receive().await.expect("a delivery"),
        smallest.receive().await.expect("a delivery"),
    ];
    // Two messages are left, and not one is for those who hold their share.
    for full in [&mut small, &mut smallest] {
        tokio::select! {
            biased;
            beyond = full.receive() => panic!("beyond the prefetch: {beyond:?}"),
            () = std::future::ready(()) => {}
        }
    }
    // Whoever comes later gets exactly the rest: nobody holds more than the prefetch.
    let mut rest = corner.broker.subscribe(&queue, 10).await.expect("subscribed");
    let mut all = drain(&mut *rest, 2).await;
    all.extend(held.iter().map(operation));
    all.sort();
    assert_eq!(all, numbers(0..5));
    // An answer makes room for one more.
    corner.publish(&[message(&exchange, "ok", "next")]).await;
    drop(rest);
    let [first, ..] = held;
    first.acker.ack().await.expect("acknowledged");
    assert_eq!(drain(&mut *small, 1).await, ["next"]);
    drop((small, smallest));
    corner.clean().await;
}

pub(crate) async fn competing_consumers_share_a_queue(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let mut consumers = Vec::new();
    for _ in 0..3 {
        consumers.push(corner.broker.subscribe(&queue, 1).await.expect("subscribed"));
    }
    corner.publish(&numbered(&exchange, 3)).await;
    // Each holds its one delivery until all have one, so none can have taken two.
    let mut held = Vec::new();
    for consumer in &mut consumers {
        held.push(consumer.receive().await.expect("a delivery"));
    }
    let mut operations: Vec<_> = held.iter().map(operation).collect();
    operations.sort();
    assert_eq!(operations, numbers(0..3));
    drop(consumers);
    corner.clean().await;
}

pub(crate) async fn of_several_consumers_one_is_active_where_told_so(harness: &impl Harness) {
    let corner = harness.corner();
    let exchange = corner.exchange("exchange", ExchangeKind::Direct).await;
    let queue = corner.queue_with("queue", |queue| queue.single_active_consumer = true).await;
    corner.bind(&exchange, &queue, "ok").await;
    let mut first = corner.broker.subscribe(&queue, 10).await.expect("subscribed");
    let mut second = corner.broker.subscribe(&queue, 10).await.expect("subscribed");
    corner.publish(&numbered(&exchange, 6)).await;
    let mut held = Vec::new();
    for number in numbers(0..6) {
        let delivery = tokio::select! {
            delivery = first.receive() => delivery.expect("a delivery"),
            _ = second.receive() => panic!("it is not its turn"),
        };
        assert_eq!(operation(&delivery), number);
        held.push(delivery);
    }
    for delivery in held.drain(..2) {
        delivery.acker.ack().await.expect("acknowledged");
    }
    drop(first);
    assert_eq!(drain(&mut *second, 4).await, numbers(2..6));

    let mut third = corner.broker.subscribe(&queue, 10).await.expect("subscribed");
    let waiting = tokio::spawn(async move { drain(&mut *third, 1).await });
    corner.publish(&numbered(&exchange, 1)).await;
    drop((held, second));
    assert_eq!(waiting.await.expect("no panic"), numbers(0..1));
    corner.clean().await;
}

pub(crate) async fn what_waits_is_counted_after_what_was_sent(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let mut subscription = corner.broker.subscribe(&queue, 3).await.expect("subscribed");
    assert_eq!(subscription.waiting().await.expect("counted"), 0);
    // Often, for what it is about is a race.
    for _ in 0..20 {
        corner.publish(&numbered(&exchange, 3)).await;
        // As many as may be sent: once they are, nothing is ready, and all are there at once.
        let (mut seen, mut looked_empty) = (0, false);
        while seen < 3 {
            let waiting = subscription.waiting().await.expect("counted");
            let before = seen;
            // One task's budget that is used up would look like an empty queue.
            while let Some(delivery) = unconstrained(subscription.receive()).now_or_never() {
                delivery.expect("a delivery").acker.ack().await.expect("acknowledged");
                seen += 1;
            }
            let empty = waiting == 0 && seen == before;
            assert!(!(empty && looked_empty), "an empty queue that was none");
            looked_empty = empty;
            if empty {
                // What is counted no more may come behind the count.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    assert_eq!(subscription.waiting().await.expect("counted"), 0);
    drop(subscription);
    corner.clean().await;
}
