//! How long a lane waits for a broker that is slow, blocks, or has fallen silent.

use std::time::Duration;

use support::broker::{Corner, drain, message, rabbit_settings, rabbitmq};
use support::frames::{Confirms, FrameProxy};
use support::proxy::Proxy;
use support::{bounded, eventually, services};
use transport::rabbitmq::RabbitMq;
use transport::{Health, Publisher, Subscriber, Unavailable, Verdict};

const PUBLISH_TIMEOUT: Duration = Duration::from_secs(3);

/// With deadlines short enough to see them pass.
fn impatient(url: &str, blocked_timeout: Duration) -> RabbitMq {
    let mut settings = rabbit_settings(url);
    settings.publish_timeout = PUBLISH_TIMEOUT;
    settings.connect_timeout = PUBLISH_TIMEOUT;
    settings.blocked_timeout = blocked_timeout;
    RabbitMq::new(&settings).expect("valid settings")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_in_an_alarm_is_waited_for_on_the_same_connection_and_gets_nothing_twice() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.pair().await;
        let proxy = FrameProxy::to_url(&services::amqp_url()).await;
        let broker = impatient(&proxy.url, Duration::from_secs(100));
        let mut lane = broker.open_lane().await.expect("a lane");
        let mut expected = Vec::new();
        // Before the first publish, when the exchange has not been looked up yet, and on a lane that
        // has published.
        for round in 0..2 {
            proxy.raise_alarm("low on memory");
            eventually("the client knows", async || {
                broker.health() == Health::Blocked { reason: "low on memory".into() }
            })
            .await;
            let operations: Vec<_> = (0..50).map(|i| format!("{round}-{i}")).collect();
            let batch: Vec<_> = operations.iter().map(|o| message(&exchange, "ok", o)).collect();
            let alarm = async {
                // Longer than any deadline of ours.
                tokio::time::sleep(PUBLISH_TIMEOUT * 3 / 2).await;
                assert_eq!(corner.depth(&queue).await, expected.len() as u64);
                assert!(matches!(broker.health(), Health::Blocked { .. }));
                proxy.end_alarm();
            };
            let (verdicts, ()) = tokio::join!(lane.publish(&batch), alarm);
            assert_eq!(verdicts.expect("settled"), vec![Verdict::Confirmed; 50]);
            // A task of its own hears of the alarm's end.
            eventually("the client knows", async || broker.health() == Health::Connected).await;
            expected.extend(operations);
        }
        assert_eq!(proxy.accepted(), 1);
        assert_eq!(corner.depth(&queue).await, 100);
        let mut subscription = corner.broker.subscribe(&queue, 100).await.expect("subscribed");
        assert_eq!(drain(&mut *subscription, 100).await, expected);
        drop((lane, subscription));
        corner.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_without_end_is_given_up_with_its_reason_and_stays_visible() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, _) = corner.pair().await;
        let proxy = FrameProxy::to_url(&services::amqp_url()).await;
        let broker = impatient(&proxy.url, PUBLISH_TIMEOUT * 3 / 2);
        let mut lane = broker.open_lane().await.expect("a lane");
        let batch = [message(&exchange, "ok", 1)];
        lane.publish(&batch).await.expect("settled");
        proxy.raise_alarm("low on disk");
        eventually("the client knows", async || broker.health() != Health::Connected).await;
        let blocked = lane.publish(&batch).await;
        assert!(
            matches!(&blocked, Err(Unavailable::Blocked { reason }) if reason == "low on disk"),
            "{blocked:?}"
        );
        assert!(!blocked.expect_err("blocked").needs_operator());
        drop(lane);
        assert_eq!(broker.health(), Health::Blocked { reason: "low on disk".into() });
        proxy.end_alarm();
        let mut lane = broker.open_lane().await.expect("a new lane");
        assert_eq!(lane.publish(&batch).await.expect("settled"), [Verdict::Confirmed]);
        assert_eq!(broker.health(), Health::Connected);
        drop(lane);
        corner.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_whose_confirms_come_slowly_and_backwards_settles_at_the_first_attempt() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.pair().await;
        let proxy = FrameProxy::to_url(&services::amqp_url()).await;
        let broker = impatient(&proxy.url, Duration::from_secs(100));
        let mut lane = broker.open_lane().await.expect("a lane");
        // In all far longer than the deadline, which no single one of them comes near.
        proxy.confirms(Confirms::Backwards { gather: 12, pause: PUBLISH_TIMEOUT / 6 });
        let mut batch: Vec<_> = (0..12).map(|i| message(&exchange, "ok", i)).collect();
        batch[3].routing_key = "nowhere".into();
        let verdicts = lane.publish(&batch).await.expect("settled");
        for (i, verdict) in verdicts.iter().enumerate() {
            match i {
                3 => assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}"),
                _ => assert_eq!(*verdict, Verdict::Confirmed, "{i}"),
            }
        }
        assert_eq!(corner.depth(&queue).await, 11);
        assert_eq!(proxy.accepted(), 1);
        // One that never comes is given up all the same.
        proxy.confirms(Confirms::Backwards { gather: 13, pause: Duration::ZERO });
        let silent = lane.publish(&batch[..1]).await;
        assert!(matches!(silent, Err(Unavailable::Timeout { step: "publish", .. })), "{silent:?}");
        drop(lane);
        corner.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_with_half_a_second_of_latency_is_slow_and_not_dead() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.pair().await;
        let (proxy, url) = Proxy::to_url(&services::amqp_url()).await;
        let broker = RabbitMq::new(&rabbit_settings(url)).expect("valid settings");
        let mut lane = broker.open_lane().await.expect("a lane");
        proxy.delay(Duration::from_millis(500), Duration::ZERO);
        let batch: Vec<_> = (0..2_500).map(|i| message(&exchange, "ok", i)).collect();
        assert_eq!(lane.publish(&batch).await.expect("settled"), vec![Verdict::Confirmed; 2_500]);
        assert_eq!(proxy.accepted(), 1);
        let mut subscription = corner.broker.subscribe(&queue, 500).await.expect("subscribed");
        let operations = drain(&mut *subscription, 2_500).await;
        assert!(operations.iter().enumerate().all(|(i, o)| *o == i.to_string()), "order is kept");
        assert_eq!(corner.depth(&queue).await, 0);
        drop((lane, subscription));
        corner.clean().await;
    })
    .await;
}
