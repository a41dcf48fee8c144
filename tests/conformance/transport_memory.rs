use std::time::Duration;

use support::broker::{Corner, drain, message, operation};
use transport::memory::MemoryBroker;
use transport::{Health, Publisher, Refusal, Subscriber, Topology, Unavailable, Verdict};

use crate::transport::{Harness, conformance};

struct Memory;

impl Harness for Memory {
    type Broker = MemoryBroker;

    fn connect(&self) -> MemoryBroker {
        MemoryBroker::new()
    }
}

conformance!(Memory);

#[tokio::test]
async fn a_script_decides_by_hand() {
    let corner = Corner::new(MemoryBroker::new());
    let (exchange, queue) = corner.pair().await;
    let nacked = Verdict::Refused(Refusal::Nacked);
    let scripted = nacked.clone();
    let broker = corner.broker.clone();
    let watched = queue.clone();
    corner.broker.script(move |message| {
        // A script may ask the broker.
        assert_eq!(broker.depth(&watched), 0);
        (message.operation == "1").then(|| scripted.clone())
    });
    let batch: Vec<_> = (0..3).map(|i| message(&exchange, "ok", i)).collect();
    let mut lane = corner.broker.open_lane().await.expect("a lane");
    let verdicts = lane.publish(&batch).await.expect("settled");
    assert_eq!(verdicts, [Verdict::Confirmed, nacked, Verdict::Confirmed]);
    assert_eq!(corner.broker.depth(&queue), 2);
    corner.broker.clear_script();
    assert_eq!(lane.publish(&batch).await.expect("settled"), vec![Verdict::Confirmed; 3]);
}

#[tokio::test]
async fn failed_batches_do_not_arrive_and_unconfirmed_ones_do() {
    let corner = Corner::new(MemoryBroker::new());
    let (exchange, queue) = corner.pair().await;
    corner.broker.record_published();
    corner.broker.fail_next_publishes(1);
    corner.broker.lose_confirms(1);
    let batch = [message(&exchange, "ok", 1)];
    for depth in [0, 1] {
        let mut lane = corner.broker.open_lane().await.expect("a lane");
        let lost = lane.publish(&batch).await;
        assert!(matches!(lost, Err(Unavailable::Lost { .. })), "{lost:?}");
        assert_eq!(corner.broker.depth(&queue), depth);
        // The lane is of no more use.
        assert!(lane.publish(&batch).await.is_err());
    }
    let mut lane = corner.broker.open_lane().await.expect("a lane");
    assert_eq!(lane.publish(&batch).await.expect("settled"), [Verdict::Confirmed]);
    let published: Vec<_> = corner.broker.published().iter().map(|message| message.id).collect();
    assert_eq!(published, [batch[0].id; 2]);
}

#[tokio::test]
async fn duplicates_and_lost_acknowledgements_are_made_on_demand() {
    let corner = Corner::new(MemoryBroker::new());
    let (exchange, queue) = corner.pair().await;
    corner.broker.duplicate_next(1);
    corner.broker.redeliver_every(2);
    let batch: Vec<_> = (0..3).map(|i| message(&exchange, "ok", i)).collect();
    corner.broker.open_lane().await.expect("a lane").publish(&batch).await.expect("settled");
    let mut subscription = corner.broker.subscribe(&queue, 1).await.expect("subscribed");
    let mut arrived = Vec::new();
    for _ in 0..6 {
        let delivery = subscription.receive().await.expect("a delivery");
        arrived.push((operation(&delivery), delivery.redelivered));
        delivery.acker.ack().await.expect("acknowledged");
    }
    let expected =
        [("0", false), ("0", false), ("1", false), ("2", false), ("0", true), ("2", true)];
    assert_eq!(
        arrived,
        expected.map(|(operation, redelivered)| (operation.to_owned(), redelivered))
    );
    assert_eq!((corner.broker.depth(&queue), corner.broker.unacked(&queue)), (0, 0));
}

#[tokio::test]
async fn what_is_given_back_keeps_its_place() {
    let corner = Corner::new(MemoryBroker::new());
    let (exchange, queue) = corner.pair().await;
    let batch: Vec<_> = (0..4).map(|i| message(&exchange, "ok", i)).collect();
    corner.broker.open_lane().await.expect("a lane").publish(&batch).await.expect("settled");
    let mut subscription = corner.broker.subscribe(&queue, 3).await.expect("subscribed");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(subscription.receive().await.expect("a delivery"));
    }
    for one in [2, 0] {
        held.remove(one).acker.requeue().await.expect("given back");
    }
    drop(subscription);
    let mut subscription = corner.broker.subscribe(&queue, 9).await.expect("subscribed");
    assert_eq!(drain(&mut *subscription, 4).await, ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn a_disconnect_ends_everything_until_the_reconnect() {
    let corner = Corner::new(MemoryBroker::new());
    let (exchange, queue) = corner.pair().await;
    let broker = &corner.broker;
    let batch = [message(&exchange, "ok", 1)];
    let mut lane = broker.open_lane().await.expect("a lane");
    lane.publish(&batch).await.expect("settled");
    let mut subscription = broker.subscribe(&queue, 5).await.expect("subscribed");
    let held = subscription.receive().await.expect("a delivery");
    assert_eq!(broker.unacked(&queue), 1);

    let disconnecting = async {
        tokio::task::yield_now().await;
        broker.disconnect();
    };
    let (ended, ()) = tokio::join!(subscription.receive(), disconnecting);
    assert!(matches!(ended, Err(Unavailable::Lost { .. })), "{ended:?}");
    assert_eq!(broker.health(), Health::Disconnected);
    assert!(matches!(lane.publish(&batch).await, Err(Unavailable::Lost { .. })));
    assert!(matches!(held.acker.ack().await, Err(Unavailable::Lost { .. })));
    assert!(broker.open_lane().await.is_err() && broker.subscribe(&queue, 1).await.is_err());
    assert!(broker.queue_depth(&queue).await.is_err());

    broker.reconnect();
    // What was opened before stays dead.
    assert!(lane.publish(&batch).await.is_err() && subscription.receive().await.is_err());
    let mut subscription = broker.subscribe(&queue, 5).await.expect("subscribed");
    let again = subscription.receive().await.expect("a delivery");
    assert!(again.redelivered);
    again.acker.ack().await.expect("acknowledged");
}

#[tokio::test(start_paused = true)]
async fn a_blocked_broker_says_why_and_a_paused_one_does_not() {
    let corner = Corner::new(MemoryBroker::new().with_publish_timeout(Duration::from_secs(5)));
    let (exchange, queue) = corner.pair().await;
    let broker = &corner.broker;
    let batch = [message(&exchange, "ok", 1)];
    broker.block("low on disk");
    assert_eq!(broker.health(), Health::Blocked { reason: "low on disk".into() });
    let mut lane = broker.open_lane().await.expect("a lane");
    let blocked = lane.publish(&batch).await;
    assert!(
        matches!(&blocked, Err(Unavailable::Blocked { reason }) if reason == "low on disk"),
        "{blocked:?}"
    );
    // One that ends is no silence, however long it was.
    let mut lane = broker.open_lane().await.expect("a lane");
    let unblocking = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        broker.unblock();
    };
    let (settled, ()) = tokio::join!(lane.publish(&batch), unblocking);
    assert_eq!(settled.expect("settled"), [Verdict::Confirmed]);
    assert_eq!(broker.depth(&queue), 1);
    broker.pause();
    assert_eq!(broker.health(), Health::Connected);
    let mut lane = broker.open_lane().await.expect("a lane");
    let silent = lane.publish(&batch).await;
    assert!(matches!(silent, Err(Unavailable::Timeout { .. })), "{silent:?}");
    assert_eq!(broker.depth(&queue), 1);

    let mut lane = broker.open_lane().await.expect("a lane");
    let resuming = async {
        tokio::task::yield_now().await;
        broker.resume();
    };
    let (settled, ()) = tokio::join!(lane.publish(&batch), resuming);
    assert_eq!(settled.expect("settled"), [Verdict::Confirmed]);
    let mut subscription = broker.subscribe(&queue, 1).await.expect("subscribed");
    assert_eq!(drain(&mut *subscription, 2).await, ["1", "1"]);
}
