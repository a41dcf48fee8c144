use support::broker::{drain, message};
use transport::{
    Binding, Exchange, ExchangeKind, Overflow, Publisher as _, Queue, QueueKind, Subscriber as _,
    Topology as _, TopologyError, Verdict,
};

use super::Harness;

pub(crate) async fn declaring_twice_is_harmless_and_otherwise_a_mismatch(harness: &impl Harness) {
    let corner = harness.corner();
    let queue = corner.queue_with("queue", |queue| queue.max_length = Some(7)).await;
    let exchange = corner.exchange("exchange", ExchangeKind::Topic).await;
    corner.queue_with("queue", |queue| queue.max_length = Some(7)).await;
    corner.exchange("exchange", ExchangeKind::Topic).await;

    let other = Queue { max_length: Some(8), ..Queue::new(queue.clone()) };
    let mismatch = corner.broker.declare_queue(&other).await;
    assert!(
        matches!(&mismatch, Err(TopologyError::Mismatch { object, text })
            if object.contains(&queue) && text.contains('7') && text.contains('8')),
        "{mismatch:?}"
    );
    let other = Exchange { name: exchange.clone(), kind: ExchangeKind::Fanout };
    let mismatch = corner.broker.declare_exchange(&other).await;
    assert!(
        matches!(&mismatch, Err(TopologyError::Mismatch { object, text })
            if object.contains(&exchange) && text.to_lowercase().contains("topic") && text.to_lowercase().contains("fanout")),
        "{mismatch:?}"
    );
    corner.clean().await;
}

pub(crate) async fn binding_needs_both_ends(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let missing = corner.name("missing");
    for (exchange, queue) in [(&missing, &queue), (&exchange, &missing)] {
        let binding =
            Binding { exchange: exchange.clone(), queue: queue.clone(), routing_key: "k".into() };
        let refused = corner.broker.bind(&binding).await;
        assert!(
            matches!(&refused, Err(TopologyError::Refused { text, .. }) if text.contains(&missing)),
            "{refused:?}"
        );
    }
    let long = Queue::new("q".repeat(256));
    let refused = corner.broker.declare_queue(&long).await;
    assert!(matches!(refused, Err(TopologyError::Refused { .. })), "{refused:?}");
    assert!(corner.broker.exchange_exists(&exchange).await.expect("the broker answers"));
    assert!(!corner.broker.exchange_exists(&missing).await.expect("the broker answers"));
    corner.clean().await;
}

pub(crate) async fn deleting_what_is_missing_is_no_error(harness: &impl Harness) {
    let corner = harness.corner();
    let missing = corner.name("missing");
    corner.broker.delete_queue(&missing).await.expect("no error");
    corner.broker.delete_exchange(&missing).await.expect("no error");
    assert_eq!(corner.broker.queue_depth(&missing).await.expect("the broker answers"), None);
    corner.clean().await;
}

pub(crate) async fn a_full_queue_drops_its_oldest_where_told_so(harness: &impl Harness) {
    let corner = harness.corner();
    let exchange = corner.exchange("exchange", ExchangeKind::Fanout).await;
    let queue = corner
        .queue_with("queue", |queue| {
            queue.kind = QueueKind::Classic;
            queue.max_length = Some(2);
            queue.overflow = Overflow::DropHead;
        })
        .await;
    corner.bind(&exchange, &queue, "").await;
    let mut lane = corner.broker.open_lane().await.expect("a lane");
    let batch: Vec<_> = (0..5).map(|i| message(&exchange, "", i)).collect();
    assert_eq!(lane.publish(&batch).await.expect("settled"), vec![Verdict::Confirmed; 5]);
    let mut subscription = corner.broker.subscribe(&queue, 10).await.expect("subscribed");
    assert_eq!(drain(&mut *subscription, 2).await, ["3", "4"]);
    drop((lane, subscription));
    corner.clean().await;
}
