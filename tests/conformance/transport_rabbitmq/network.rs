use std::time::Duration;

use support::broker::{Corner, drain, message, operation, rabbit_settings, rabbitmq};
use support::proxy::{Direction, Proxy};
use support::{bounded, eventually, services};
use transport::rabbitmq::{RabbitMq, RabbitSettings};
use transport::{Health, Publisher, Subscriber, Unavailable, Verdict};

/// A client whose connections lead through a proxy, and that gives up after so long.
async fn through_proxy_within(deadline: Duration) -> (Proxy, RabbitMq) {
    let (proxy, url) = Proxy::to_url(&services::amqp_url()).await;
    let mut settings = RabbitSettings::new(url);
    settings.publish_timeout = deadline;
    settings.connect_timeout = deadline;
    (proxy, RabbitMq::new(&settings).expect("valid settings"))
}

async fn through_proxy() -> (Proxy, RabbitMq) {
    through_proxy_within(Duration::from_secs(60)).await
}

fn with_login(user: &str, password: &str, path: &str) -> RabbitMq {
    let url = services::amqp_url();
    let host = url
        .rsplit_once('@')
        .map_or_else(|| url.split_once("://").expect("a URL").1, |(_, host)| host);
    let host = host.split('/').next().expect("a host");
    RabbitMq::new(&rabbit_settings(format!("amqp://{user}:{password}@{host}{path}")))
        .expect("valid settings")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_while_publishing_leaves_the_outcome_open_and_a_new_lane_works() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.pair().await;
        let (proxy, broker) = through_proxy().await;
        let mut lane = broker.open_lane().await.expect("a lane");
        assert_eq!(broker.health(), Health::Connected);
        let batch: Vec<_> = (0..50).map(|i| message(&exchange, "ok", i)).collect();
        lane.publish(&batch).await.expect("settled");
        // The messages get there and their confirms do not get back.
        proxy.hold(Direction::ToClient);
        let cutting = async {
            eventually("the batch has arrived", async || corner.depth(&queue).await == 100).await;
            proxy.cut();
        };
        let (lost, ()) = tokio::join!(lane.publish(&batch), cutting);
        assert!(matches!(lost, Err(Unavailable::Lost { .. })), "{lost:?}");
        assert!(matches!(lane.publish(&batch).await, Err(Unavailable::Lost { .. })));
        assert_eq!(broker.health(), Health::Disconnected);

        proxy.resume();
        let mut lane = broker.open_lane().await.expect("a new lane");
        assert_eq!(lane.publish(&batch).await.expect("settled"), vec![Verdict::Confirmed; 50]);
        assert_eq!(corner.depth(&queue).await, 150);
        drop(lane);
        Publisher::close(&broker).await;
        corner.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_is_a_timeout_and_the_lane_is_not_used_again() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, _) = corner.pair().await;
        let (proxy, broker) = through_proxy_within(Duration::from_secs(4)).await;
        let mut lane = broker.open_lane().await.expect("a lane");
        let batch = [message(&exchange, "ok", 1)];
        lane.publish(&batch).await.expect("settled");
        proxy.blackhole();
        let silent = lane.publish(&batch).await;
        assert!(matches!(silent, Err(Unavailable::Timeout { step: "publish", .. })), "{silent:?}");
        // The late confirm must not meet the next batch.
        proxy.resume();
        assert!(matches!(lane.publish(&batch).await, Err(Unavailable::Lost { .. })));
        drop(lane);

        proxy.blackhole();
        let silent = broker.open_lane().await.err();
        assert!(matches!(silent, Some(Unavailable::Timeout { step: "connect", .. })), "{silent:?}");
        proxy.resume();
        let mut lane = broker.open_lane().await.expect("a new lane");
        assert_eq!(lane.publish(&batch).await.expect("settled"), [Verdict::Confirmed]);
        drop(lane);
        corner.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_publish_ends_its_lane() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, _) = corner.pair().await;
        let (proxy, broker) = through_proxy().await;
        let mut lane = broker.open_lane().await.expect("a lane");
        let batch = [message(&exchange, "nowhere", 1)];
        lane.publish(&batch).await.expect("settled");
        proxy.hold(Direction::ToClient);
        tokio::select! {
            biased;
            settled = lane.publish(&batch) => panic!("settled without an answer: {settled:?}"),
            () = tokio::task::yield_now() => {}
        }
        proxy.resume();
        let refused = lane.publish(&batch).await;
        assert!(matches!(refused, Err(Unavailable::Lost { .. })), "{refused:?}");
        drop(lane);
        corner.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_ends_subscriptions_and_what_they_held_comes_again() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.pair().await;
        let batch: Vec<_> = (0..3).map(|i| message(&exchange, "ok", i)).collect();
        corner.broker.open_lane().await.expect("a lane").publish(&batch).await.expect("settled");
        let (proxy, broker) = through_proxy().await;
        let mut subscription = broker.subscribe(&queue, 1).await.expect("subscribed");
        let held = subscription.receive().await.expect("a delivery");
        proxy.cut();
        let ended = subscription.receive().await;
        assert!(matches!(ended, Err(Unavailable::Lost { .. })), "{ended:?}");
        assert!(matches!(held.acker.ack().await, Err(Unavailable::Lost { .. })));
        let mut subscription = broker.subscribe(&queue, 1).await.expect("subscribed");
        let again = subscription.receive().await.expect("a delivery");
        assert_eq!((operation(&again).as_str(), again.redelivered), ("0", true));
        again.acker.ack().await.expect("acknowledged");
        assert_eq!(drain(&mut *subscription, 2).await, ["1", "2"]);
        drop(subscription);
        Subscriber::close(&broker).await;
        corner.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_subscribers_that_find_the_connection_dead_open_one() {
    bounded(async {
        let corner = Corner::new(rabbitmq());
        let queue = corner.queue("queue").await;
        let (proxy, broker) = through_proxy().await;
        for _ in 0..2 {
            let mut opened =
                futures_util::future::join_all((0..16).map(|_| broker.subscribe(&queue, 1))).await;
            assert!(opened.iter().all(Result::is_ok));
            assert_eq!(proxy.accepted(), 1);
            proxy.cut();
            proxy.forget_accepted();
            let ended = opened[0].as_mut().expect("subscribed").receive().await;
            assert!(matches!(ended, Err(Unavailable::Lost { .. })), "{ended:?}");
        }
        corner.clean().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_names_user_and_vhost_and_never_the_password() {
    for (user, password, path, vhost) in [
        ("guest", "wr0ng-s3cret", "/%2f", "/"),
        ("nobody", "wr0ng-s3cret", "", "/"),
        ("guest", "guest", "/no%2fsuch", "no/such"),
    ] {
        let broker = with_login(user, password, path);
        for refused in [broker.open_lane().await.err(), broker.subscribe("q", 1).await.err()]
            .map(|error| error.expect("refused"))
        {
            assert!(
                matches!(&refused, Unavailable::LoginRefused { user: named, vhost: tried, .. } if named == user && tried == vhost),
                "{refused:?}"
            );
            assert!(refused.needs_operator());
            assert!(!format!("{refused} {refused:?} {broker:?}").contains("wr0ng"), "{refused:?}");
        }
        assert_eq!(broker.health(), Health::Disconnected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_where_nobody_answers_is_unreachable() {
    let (proxy, broker) = through_proxy().await;
    let nobody = RabbitMq::new(&RabbitSettings::new("amqp://guest:s3cret@127.0.0.1:1"))
        .expect("valid settings");
    proxy.refuse(true);
    for broker in [nobody, broker] {
        let unreachable = broker.open_lane().await.err().expect("unreachable");
        assert!(matches!(unreachable, Unavailable::Unreachable { .. }), "{unreachable:?}");
        assert!(!unreachable.needs_operator());
        assert!(!format!("{unreachable} {unreachable:?}").contains("s3cret"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_twice_is_harmless_and_a_lane_opens_it_again() {
    bounded(async {
        let broker = rabbitmq();
        assert_eq!(broker.health(), Health::Disconnected);
        let lane = broker.open_lane().await.expect("a lane");
        for _ in 0..2 {
            Publisher::close(&broker).await;
            Subscriber::close(&broker).await;
            assert_eq!(broker.health(), Health::Disconnected);
        }
        drop(lane);
        broker.open_lane().await.expect("a lane");
        Publisher::close(&broker).await;
    })
    .await;
}
