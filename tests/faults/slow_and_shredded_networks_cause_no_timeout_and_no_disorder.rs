//! A network with half a second of delay and jitter, then one that passes single bytes: slower, and
//! nothing else. No connection is given up, so nothing is repeated.

use std::time::Duration;

use support::broker::{Corner, rabbitmq};
use support::eventually;
use support::flow::{Arrived, Flow, LANES, broker, settings};
use support::proxy::Proxy;
use support::services::amqp_url;
use transport::ExchangeKind;

#[tokio::test(flavor = "multi_thread")]
async fn between_relay_and_broker() {
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("facts", ExchangeKind::Fanout).await;
    let queue = corner.queue("facts").await;
    corner.bind(&exchange, &queue, "").await;
    let (proxy, url) = Proxy::to_url(&amqp_url()).await;
    let mut flow = Flow::new();
    let mut to_broker = broker(&url);
    to_broker.publish_timeout = Duration::from_secs(8);
    let relay = flow.relay_with(&to_broker, settings());
    flow.commit("key", 300, 300, |draft| draft.exchange(&exchange));
    flow.passed().await;

    proxy.delay(Duration::from_millis(500), Duration::from_millis(200));
    flow.commit("key", 300, 900, |draft| draft.exchange(&exchange));
    flow.passed().await;
    proxy.delay(Duration::ZERO, Duration::ZERO);

    proxy.slice(Some(1));
    flow.commit("key", 300, 900, |draft| draft.exchange(&exchange));
    flow.passed().await;

    eventually("nothing is held", async || flow.held().is_empty()).await;
    assert_eq!(proxy.accepted(), LANES, "slow is not gone");
    relay.stop().await;
    let mut arrived = Arrived::new();
    arrived.drain(&corner.broker, &queue).await;
    assert_eq!(arrived.last, flow.committed("key"), "every message arrived");
    assert_eq!(arrived.repeats, 0);
    corner.clean().await;
}
