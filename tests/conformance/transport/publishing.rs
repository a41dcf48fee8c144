use std::collections::BTreeSet;

use message::{InvalidMessage, Message};
use support::broker::{Broker, Corner, drain, message};
use transport::{
    ExchangeKind, Overflow, Poison, Publisher as _, QueueKind, Refusal, Subscriber as _, Verdict,
};

use super::Harness;

fn unroutable(exchange: &str, routing_key: &str) -> Verdict {
    Verdict::Refused(Refusal::Unroutable {
        exchange: exchange.into(),
        routing_key: routing_key.into(),
    })
}

async fn publish(corner: &Corner<impl Broker>, batch: &[Message]) -> Vec<Verdict> {
    let mut lane = corner.broker.open_lane().await.expect("a lane");
    lane.publish(batch).await.expect("settled")
}

pub(crate) async fn each_kind_of_exchange_routes_by_its_rule(harness: &impl Harness) {
    let corner = harness.corner();
    let queue = corner.queue("queue").await;
    let other = corner.queue("other").await;
    // Kind, binding of `queue`, routing key, whether it is routed.
    let cases = [
        (ExchangeKind::Direct, "a.b", "a.b", true),
        (ExchangeKind::Direct, "a.b", "a.c", false),
        (ExchangeKind::Direct, "a.*", "a.b", false),
        (ExchangeKind::Direct, "", "", true),
        (ExchangeKind::Fanout, "x", "anything", true),
        (ExchangeKind::Fanout, "x", "", true),
        (ExchangeKind::Topic, "a.*", "a.b", true),
        (ExchangeKind::Topic, "a.*", "a", false),
        (ExchangeKind::Topic, "a.*", "a.b.c", false),
        (ExchangeKind::Topic, "a.#", "a", true),
        (ExchangeKind::Topic, "a.#", "a.b.c", true),
        (ExchangeKind::Topic, "#.c", "a.b.c", true),
        (ExchangeKind::Topic, "a.#.c", "a.c", true),
        (ExchangeKind::Topic, "#", "", true),
        (ExchangeKind::Topic, "*", "", false),
        (ExchangeKind::Topic, "a.b", "a.b", true),
    ];
    let mut expected = Vec::new();
    for (i, (kind, binding, key, routed)) in cases.into_iter().enumerate() {
        let exchange = corner.exchange(&format!("exchange-{i}"), kind).await;
        corner.bind(&exchange, &queue, binding).await;
        let verdict = publish(&corner, &[message(&exchange, key, i)]).await;
        let wanted = if routed { Verdict::Confirmed } else { unroutable(&exchange, key) };
        assert_eq!(verdict, [wanted], "{kind:?} bound with {binding:?}, published with {key:?}");
        expected.extend(routed.then(|| i.to_string()));
    }
    // Two bindings of one queue that match give one copy; two queues give one each.
    let topic = corner.exchange("both", ExchangeKind::Topic).await;
    for (bound, pattern) in [(&queue, "t.*"), (&queue, "*.t"), (&other, "#")] {
        corner.bind(&topic, bound, pattern).await;
    }
    assert_eq!(publish(&corner, &[message(&topic, "t.t", "both")]).await, [Verdict::Confirmed]);
    expected.push("both".into());
    let mut subscription = corner.broker.subscribe(&queue, 100).await.expect("subscribed");
    assert_eq!(drain(&mut *subscription, expected.len()).await, expected);
    assert_eq!(corner.depth(&other).await, 1);
    assert_eq!(corner.depth(&queue).await, 0);
    drop(subscription);
    corner.clean().await;
}

/// With thousands of publishes in flight, returns come back on other messages' confirms.
pub(crate) async fn verdicts_are_exact_with_one_in_seven_unroutable(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let mut lane = corner.broker.open_lane().await.expect("a lane");
    let mut expected_depth = 0;
    for round in 0..10 {
        let batch: Vec<_> = (0..4_000)
            .map(|i| {
                let key = if fastrand::u8(0..7) == 0 { "nowhere" } else { "ok" };
                message(&exchange, key, format!("{round}-{i}"))
            })
            .collect();
        let verdicts = lane.publish(&batch).await.expect("settled");
        assert_eq!(verdicts.len(), batch.len());
        let wrong = batch
            .iter()
            .zip(&verdicts)
            .filter(|(message, verdict)| match message.routing_key.as_str() {
                "ok" => **verdict != Verdict::Confirmed,
                _ => **verdict != unroutable(&exchange, "nowhere"),
            })
            .count();
        assert_eq!(wrong, 0, "wrong verdicts in round {round}");
        expected_depth += batch.iter().filter(|message| message.routing_key == "ok").count() as u64;
    }
    drop(lane);
    assert_eq!(corner.depth(&queue).await, expected_depth);
    corner.clean().await;
}

pub(crate) async fn a_missing_exchange_in_mid_batch_keeps_its_neighbours(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let missing = corner.name("missing");
    let batch: Vec<_> = (0..300)
        .map(|i| match i {
            7 | 150 | 299 => message(&missing, "ok", i),
            20 => message(&exchange, "nowhere", i),
            _ => message(&exchange, "ok", i),
        })
        .collect();
    let mut lane = corner.broker.open_lane().await.expect("a lane");
    let verdicts = lane.publish(&batch).await.expect("settled");
    for (i, verdict) in verdicts.iter().enumerate() {
        match i {
            7 | 150 | 299 => assert!(
                matches!(verdict, Verdict::Refused(Refusal::ExchangeMissing { text }) if text.contains(&missing)),
                "{i}: {verdict:?}"
            ),
            20 => assert_eq!(*verdict, unroutable(&exchange, "nowhere")),
            _ => assert_eq!(*verdict, Verdict::Confirmed, "{i}"),
        }
    }
    // The lane is as good as before.
    let verdicts = lane.publish(&[message(&exchange, "ok", "after")]).await.expect("settled");
    assert_eq!(verdicts, [Verdict::Confirmed]);
    // Neighbours may have arrived twice; none is missing, and the repeats keep the order.
    let mut subscription = corner.broker.subscribe(&queue, 200).await.expect("subscribed");
    let mut arrived = Vec::new();
    while arrived.last().is_none_or(|last| last != "after") {
        arrived.append(&mut drain(&mut *subscription, 1).await);
    }
    let expected: Vec<_> = (0..300)
        .filter(|i| ![7, 20, 150, 299].contains(i))
        .map(|i| i.to_string())
        .chain(["after".into()])
        .collect();
    let distinct: BTreeSet<_> = arrived.iter().collect();
    assert_eq!(distinct, expected.iter().collect());
    let last_copies: Vec<_> = arrived
        .iter()
        .enumerate()
        .filter(|(i, one)| !arrived[i + 1..].contains(one))
        .map(|(_, one)| one)
        .collect();
    assert_eq!(last_copies, expected.iter().collect::<Vec<_>>());
    drop((lane, subscription));
    corner.clean().await;
}

pub(crate) async fn a_full_queue_that_rejects_is_a_nack(harness: &impl Harness) {
    let corner = harness.corner();
    let exchange = corner.exchange("exchange", ExchangeKind::Direct).await;
    let queue = corner
        .queue_with("queue", |queue| {
            // Quorum queues count late and let some more in; classic ones are exact.
            queue.kind = QueueKind::Classic;
            queue.max_length = Some(3);
            queue.overflow = Overflow::RejectPublish;
        })
        .await;
    corner.bind(&exchange, &queue, "ok").await;
    let mut lane = corner.broker.open_lane().await.expect("a lane");
    for i in 0..3 {
        let verdicts = lane.publish(&[message(&exchange, "ok", i)]).await.expect("settled");
        assert_eq!(verdicts, [Verdict::Confirmed], "{i}");
    }
    let batch = [
        message(&exchange, "ok", 3),
        message(&exchange, "nowhere", 4),
        message(&exchange, "ok", 5),
    ];
    let nacked = Verdict::Refused(Refusal::Nacked);
    let verdicts = lane.publish(&batch).await.expect("settled");
    assert_eq!(verdicts, [nacked.clone(), unroutable(&exchange, "nowhere"), nacked]);
    assert_eq!(corner.depth(&queue).await, 3);
    drop(lane);
    corner.clean().await;
}

pub(crate) async fn a_message_id_that_occurs_twice_is_judged_by_its_route(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let good = message(&exchange, "ok", 1);
    let astray = Message { routing_key: "nowhere".into(), ..good.clone() };
    let batch = [good.clone(), astray.clone(), good.clone(), astray];
    let gone = unroutable(&exchange, "nowhere");
    let verdicts = publish(&corner, &batch).await;
    assert_eq!(verdicts, [Verdict::Confirmed, gone.clone(), Verdict::Confirmed, gone]);
    assert_eq!(corner.depth(&queue).await, 2);
    corner.clean().await;
}

pub(crate) async fn an_invalid_message_is_poison_and_its_lane_lives_on(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let ok = || message(&exchange, "ok", 1);
    let long = || "x".repeat(256);
    let bad = [
        (Message { exchange: long(), ..ok() }, "exchange"),
        (Message { routing_key: long(), ..ok() }, "routing key"),
        (Message { kind: long(), ..ok() }, "kind"),
        (Message { content_type: long(), ..ok() }, "content type"),
        (Message { operation: long(), ..ok() }, "operation"),
        (Message { ordering_key: Some(long()), ..ok() }, "ordering key"),
        (Message { headers: [(long(), "v".into())].into_iter().collect(), ..ok() }, "header name"),
    ];
    let mut batch = vec![ok()];
    for (message, _) in &bad {
        batch.extend([message.clone(), ok()]);
    }
    // The default exchange would reach any queue by name.
    batch.push(Message { exchange: String::new(), routing_key: queue.clone(), ..ok() });
    let mut lane = corner.broker.open_lane().await.expect("a lane");
    let mut verdicts = lane.publish(&batch).await.expect("settled");
    let empty = InvalidMessage::EmptyName { field: "exchange" };
    assert_eq!(verdicts.pop(), Some(Verdict::Poison(Poison::Invalid(empty))));
    for (i, verdict) in verdicts.iter().enumerate() {
        let expected = match i {
            odd if odd % 2 == 1 => {
                let invalid = InvalidMessage::NameTooLong { field: bad[odd / 2].1, bytes: 256 };
                Verdict::Poison(Poison::Invalid(invalid))
            }
            _ => Verdict::Confirmed,
        };
        assert_eq!(*verdict, expected, "{i}");
    }
    assert_eq!(lane.publish(&[ok()]).await.expect("settled"), [Verdict::Confirmed]);
    assert_eq!(corner.depth(&queue).await, bad.len() as u64 + 2);
    drop(lane);
    corner.clean().await;
}

pub(crate) async fn an_empty_batch_is_settled(harness: &impl Harness) {
    let corner = harness.corner();
    assert_eq!(publish(&corner, &[]).await, []);
    corner.clean().await;
}

pub(crate) async fn lanes_of_one_broker_publish_side_by_side(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let lane = async |name: usize| {
        let mut lane = corner.broker.open_lane().await.expect("a lane");
        for batch in 0..4 {
            let batch: Vec<_> = (0..500)
                .map(|i| {
                    message(
                        &exchange,
                        if i % 5 == name { "nowhere" } else { "ok" },
                        format!("{name}-{batch}-{i}"),
                    )
                })
                .collect();
            for (i, verdict) in lane.publish(&batch).await.expect("settled").iter().enumerate() {
                assert_eq!(
                    *verdict == Verdict::Confirmed,
                    i % 5 != name,
                    "lane {name}, message {i}: {verdict:?}"
                );
            }
        }
    };
    futures_util::future::join_all((0..4).map(lane)).await;
    assert_eq!(corner.depth(&queue).await, 4 * 4 * 400);
    corner.clean().await;
}

/// Past exchanges and bindings, whatever the messages say; on any other lane the same is refused.
pub(crate) async fn a_lane_to_one_queue_reaches_it_and_nothing_else(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let other = corner.queue("other").await;
    let mut lane = corner.broker.open_lane_to(&other).await.expect("a lane");
    // To an exchange, to one that is missing, and to a queue by name as data must not.
    let batch = [message(&exchange, "ok", 0), message("nowhere", "ok", 1), message("", &queue, 2)];
    assert_eq!(lane.publish(&batch).await.expect("settled"), vec![Verdict::Confirmed; 3]);
    assert_eq!((corner.depth(&queue).await, corner.depth(&other).await), (0, 3));
    let mut ordinary = corner.broker.open_lane().await.expect("a lane");
    let verdicts = ordinary.publish(&batch[2..]).await.expect("settled");
    assert!(matches!(verdicts[..], [Verdict::Poison(Poison::Invalid(_))]), "{verdicts:?}");

    let missing = corner.name("missing");
    let mut lane = corner.broker.open_lane_to(&missing).await.expect("a lane");
    let verdicts = lane.publish(&batch).await.expect("settled");
    assert_eq!(verdicts, vec![unroutable("", &missing); 3]);
    let mut subscription = corner.broker.subscribe(&other, 100).await.expect("subscribed");
    let delivery = subscription.receive().await.expect("a delivery");
    assert_eq!((&delivery.exchange[..], &delivery.routing_key[..]), ("", &other[..]));
    delivery.acker.ack().await.expect("acknowledged");
    assert_eq!(drain(&mut *subscription, 2).await, ["1", "2"]);
    drop(subscription);
    corner.clean().await;
}

pub(crate) async fn a_reply_lane_reaches_the_queue_each_message_names(harness: &impl Harness) {
    let corner = harness.corner();
    let (exchange, queue) = corner.pair().await;
    let (other, missing) = (corner.queue("other").await, corner.name("missing"));
    let mut lane = corner.broker.open_reply_lane().await.expect("a lane");
    // Whatever exchange a message names.
    let batch = [
        message(&exchange, &queue, 0),
        message("nowhere", &other, 1),
        message("", &missing, 2),
        message("", &other, 3),
        message("", "", 4),
    ];
    let verdicts = lane.publish(&batch).await.expect("settled");
    assert_eq!(verdicts[..2], [Verdict::Confirmed, Verdict::Confirmed]);
    assert_eq!(verdicts[2..4], [unroutable("", &missing), Verdict::Confirmed]);
    assert!(matches!(verdicts[4], Verdict::Poison(Poison::Invalid(_))), "{verdicts:?}");
    assert_eq!((corner.depth(&queue).await, corner.depth(&other).await), (1, 2));
    corner.clean().await;
}
