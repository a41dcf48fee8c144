//! A memory alarm and a disk alarm: publishing is blocked, the relay says so and waits without
//! hammering, and goes on by itself when the alarm is over.

use std::time::{Duration, Instant};

use support::broker::Corner;
use support::eventually;
use support::flow::{Arrived, Flow, IN_FLIGHT, LANES, broker};
use support::node::Node;
use support::proxy::Proxy;
use transport::rabbitmq::RabbitMq;
use transport::{ExchangeKind, Health};

#[tokio::test(flavor = "multi_thread")]
async fn after_memory_and_after_disk() {
    let node = Node::start("");
    let corner = Corner::new(RabbitMq::new(&broker(&node.url())).expect("valid"));
    let exchange = corner.exchange("facts", ExchangeKind::Fanout).await;
    let queue = corner.queue("facts").await;
    corner.bind(&exchange, &queue, "").await;
    let (proxy, url) = Proxy::to_url(&node.url()).await;
    let mut flow = Flow::new();
    let relay = flow.relay(&url);
    let mut arrived = Arrived::new();

    for (alarm, end) in [
        (["set_vm_memory_high_watermark", "0.0000001"], ["set_vm_memory_high_watermark", "0.4"]),
        (["set_disk_free_limit", "10000GB"], ["set_disk_free_limit", "50MB"]),
    ] {
        flow.commit("key", 50, 500, |draft| draft.exchange(&exchange));
        flow.passed().await;
        node.ctl(&alarm);
        let (since, before) = (Instant::now(), proxy.accepted());
        flow.commit("key", 50, 1_000, |draft| draft.exchange(&exchange));
        eventually("the relay says that it is blocked", async || {
            matches!(relay.status.report().broker, Health::Blocked { .. })
        })
        .await;
        // The deadline of a batch passes meanwhile.
        eventually("the alarm lasts", async || since.elapsed() > Duration::from_secs(4)).await;
        assert_eq!(flow.held(), [], "{alarm:?}: an alarm is nobody's refusal");
        let connections = proxy.accepted() - before;
        // Whoever is slow makes fewer attempts, never more.
        let most = LANES * (8 + since.elapsed().as_millis() as usize / 750);
        println!("{alarm:?}: {connections} new connections");
        assert!(connections <= most, "{alarm:?}: {connections} new connections, a busy loop");
        node.ctl(&end);
        flow.passed().await;
        assert_eq!(flow.held(), [], "{alarm:?}");
        arrived.repeats = 0;
        arrived.drain(&corner.broker, &queue).await;
        assert_eq!(arrived.last, flow.committed("key"), "{alarm:?}: every message arrived");
        println!("{alarm:?}: {} repeats", arrived.repeats);
        assert!(arrived.repeats <= IN_FLIGHT, "{alarm:?}: {} repeats", arrived.repeats);
    }
    eventually("the relay says that it is over", async || {
        relay.status.report().broker == Health::Connected
    })
    .await;
    relay.stop().await;
}
