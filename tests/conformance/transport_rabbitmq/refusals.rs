use bytes::Bytes;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use support::bounded;
use support::broker::{Corner, drain, message, rabbitmq};
use transport::{ExchangeKind, Poison, Publisher, Refusal, Subscriber, Topology as _, Verdict};

use super::foreign::foreign;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_costs_the_connection_costs_no_other_lane_its_own() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, _) = corner.pair().await;
        // Big bodies are still queued in the client when the broker closes the channel over the
        // first message, so the connection goes too.
        let mut bad: Vec<_> = (0..40).map(|i| message(&exchange, "ok", i)).collect();
        bad[0].headers.insert("CC", "not a list");
        bad[1..].iter_mut().for_each(|message| message.payload = vec![0; 1024 * 1024].into());
        let good: Vec<_> = (0..100).map(|i| message(&exchange, "ok", i)).collect();
        let mut bad_lane = corner.broker.open_lane().await.expect("a lane");
        let mut good_lane = corner.broker.open_lane().await.expect("a lane");
        let publishing_good = async {
            for _ in 0..20 {
                assert_eq!(
                    good_lane.publish(&good).await.expect("settled"),
                    vec![Verdict::Confirmed; 100]
                );
            }
        };
        let (verdicts, ()) = tokio::join!(bad_lane.publish(&bad), publishing_good);
        let verdicts = verdicts.expect("settled");
        assert!(
            matches!(verdicts[0], Verdict::Refused(Refusal::Other { .. })),
            "{:?}",
            verdicts[0]
        );
        assert!(verdicts[1..].iter().all(|verdict| *verdict == Verdict::Confirmed), "{verdicts:?}");
        drop((bad_lane, good_lane));
        corner.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_over_a_frame_are_poison_and_the_connection_lives_on() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.pair().await;
        let mut batch: Vec<_> = (0..3).map(|i| message(&exchange, "ok", i)).collect();
        batch[1].headers.insert("big", "x".repeat(140_000));
        let mut other = corner.broker.open_lane().await.expect("a lane");
        let mut lane = corner.broker.open_lane().await.expect("a lane");
        let verdicts = lane.publish(&batch).await.expect("settled");
        assert_eq!([&verdicts[0], &verdicts[2]], [&Verdict::Confirmed; 2]);
        assert!(
            matches!(
                verdicts[1],
                Verdict::Poison(Poison::HeadersTooLarge {
                    bytes: 140_001..,
                    limit: 65_537..=131_072
                })
            ),
            "{verdicts:?}"
        );
        assert_eq!(other.publish(&batch[..1]).await.expect("settled"), [Verdict::Confirmed]);
        // The largest that fits one frame passes, so the limit is not one byte too generous.
        let limit = match &verdicts[1] {
            Verdict::Poison(Poison::HeadersTooLarge { limit, .. }) => *limit,
            _ => unreachable!(),
        };
        let mut fits = message(&exchange, "ok", 3);
        fits.headers.insert("big", "x".repeat(limit));
        let verdicts = lane.publish(std::slice::from_ref(&fits)).await.expect("settled");
        let [Verdict::Poison(Poison::HeadersTooLarge { bytes, .. })] = verdicts[..] else {
            panic!("over the limit, and yet {verdicts:?}");
        };
        fits.headers.insert("big", "x".repeat(2 * limit - bytes));
        assert_eq!(lane.publish(&[fits]).await.expect("settled"), [Verdict::Confirmed]);
        assert_eq!(corner.depth(&queue).await, 4);
        drop((lane, other));
        corner.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_brokers_limit_is_poison_and_its_neighbours_pass() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.pair().await;
        let mut batch: Vec<_> = (0..9).map(|i| message(&exchange, "ok", i)).collect();
        // One byte over the largest default of any version.
        let huge = Bytes::from(vec![0; 128 * 1024 * 1024 + 1]);
        batch[4].payload = huge.clone();
        batch[6].payload = huge;
        let mut lane = corner.broker.open_lane().await.expect("a lane");
        let verdicts = lane.publish(&batch).await.expect("settled");
        for (i, verdict) in verdicts.iter().enumerate() {
            match i {
                4 | 6 => assert!(
                    matches!(verdict, Verdict::Poison(Poison::TooLarge { text }) if text.contains("message size")),
                    "{verdict:?}"
                ),
                _ => assert_eq!(*verdict, Verdict::Confirmed, "{i}"),
            }
        }
        let mut subscription = corner.broker.subscribe(&queue, 1).await.expect("subscribed");
        let mut arrived = std::collections::BTreeSet::new();
        while arrived.len() < 7 {
            arrived.extend(drain(&mut *subscription, 1).await);
        }
        assert!(!arrived.contains("4") && !arrived.contains("6"));
        drop((lane, subscription));
        corner.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_closes_its_channel_is_found_among_its_neighbours() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.pair().await;
        // Only the broker itself may publish to an internal exchange: 403 for anybody else.
        let internal = corner.exchange_named(corner.name("internal"), ExchangeKind::Fanout).await;
        corner.broker.delete_exchange(&internal).await.expect("deleted");
        let (connection, channel) = foreign().await;
        let options = ExchangeDeclareOptions { durable: true, internal: true, ..Default::default() };
        channel
            .exchange_declare(internal.as_str().into(), lapin::ExchangeKind::Fanout, options, FieldTable::default())
            .await
            .expect("declared");
        let mut batch: Vec<_> = (0..200).map(|i| message(&exchange, "ok", i)).collect();
        batch[30].exchange = internal.clone();
        batch[170].exchange = internal;
        // The broker reads a header of this name itself and refuses it as text: 406.
        batch[90].headers.insert("CC", "not a list");
        batch[91].headers.insert("CC", "not a list");
        let mut lane = corner.broker.open_lane().await.expect("a lane");
        let verdicts = lane.publish(&batch).await.expect("settled");
        for (i, verdict) in verdicts.iter().enumerate() {
            match i {
                30 | 170 => {
                    assert!(matches!(verdict, Verdict::Refused(Refusal::AccessRefused { .. })), "{i}: {verdict:?}");
                }
                90 | 91 => {
                    let expected = matches!(verdict, Verdict::Refused(Refusal::Other { text }) if text.contains("CC"));
                    assert!(expected, "{i}: {verdict:?}");
                }
                _ => assert_eq!(*verdict, Verdict::Confirmed, "{i}"),
            }
        }
        assert!(corner.depth(&queue).await >= 196);
        drop(lane);
        connection.close(200, "OK".into()).await.expect("closed");
        corner.clean().await;
    })
    .await;
}
