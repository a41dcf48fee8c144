//! Between relay and broker confirms get lost, everything is swallowed with the connections left
//! open, or connections break in the middle of a frame: what was in flight is sent again on new
//! connections, and that is all.

use std::time::Duration;

use support::broker::{Corner, rabbitmq};
use support::eventually;
use support::flow::{Arrived, Flow, IN_FLIGHT};
use support::proxy::{Direction, Proxy};
use support::services::amqp_url;
use transport::rabbitmq::RabbitMq;
use transport::{ExchangeKind, Health, Publisher};

const KEYS: usize = 50;
const PER_ROUND: usize = 1_000;

struct Scene {
    flow: Flow,
    corner: Corner<RabbitMq>,
    exchange: String,
    queue: String,
    proxy: Proxy,
    relay: support::flow::Running,
}

impl Scene {
    async fn new() -> Self {
        let corner = Corner::new(rabbitmq());
        let exchange = corner.exchange("facts", ExchangeKind::Fanout).await;
        let queue = corner.queue("facts").await;
        corner.bind(&exchange, &queue, "").await;
        let (proxy, url) = Proxy::to_url(&amqp_url()).await;
        let flow = Flow::new();
        let relay = flow.relay(&url);
        let mut scene = Self { flow, corner, exchange, queue, proxy, relay };
        // All its lanes are there.
        scene.commit();
        scene.flow.passed().await;
        scene
    }

    fn commit(&mut self) {
        let Self { flow, exchange, .. } = self;
        flow.commit("key", KEYS, PER_ROUND, |draft| draft.exchange(&*exchange));
    }

    async fn noticed(&self) {
        eventually("the relay has noticed", async || {
            self.relay.publisher.health() == Health::Disconnected
        })
        .await;
    }

    async fn end(mut self, outages: usize) {
        self.flow.passed().await;
        assert_eq!(self.flow.held(), [], "an outage is nobody's refusal");
        self.relay.stop().await;
        let mut arrived = Arrived::new();
        arrived.drain(&self.corner.broker, &self.queue).await;
        assert_eq!(arrived.last, self.flow.committed("key"), "every message arrived");
        println!("{} repeats in {outages} outages", arrived.repeats);
        assert!(arrived.repeats <= outages * IN_FLIGHT, "{} repeats", arrived.repeats);
        self.corner.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_confirms_never_come() {
    let mut scene = Scene::new().await;
    for _ in 0..2 {
        scene.flow.passed().await;
        let before = scene.corner.depth(&scene.queue).await;
        scene.proxy.lose(Direction::ToClient);
        scene.commit();
        eventually("messages arrive", async || scene.corner.depth(&scene.queue).await > before)
            .await;
        scene.noticed().await;
        scene.proxy.forget_accepted();
        scene.proxy.resume();
        scene.flow.passed().await;
        assert!(scene.proxy.accepted() > 0, "it was sent again on new connections");
    }
    scene.end(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_everything_is_swallowed() {
    let mut scene = Scene::new().await;
    for _ in 0..2 {
        let before = scene.corner.depth(&scene.queue).await;
        scene.commit();
        eventually("the round flows", async || scene.corner.depth(&scene.queue).await > before)
            .await;
        scene.proxy.blackhole();
        scene.commit();
        scene.noticed().await;
        // What was swallowed comes out after all, late.
        scene.proxy.resume();
        scene.flow.passed().await;
    }
    scene.end(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_connections_break_at_any_byte() {
    const CUTS: usize = 8;
    let mut scene = Scene::new().await;
    for round in 0..CUTS {
        let (direction, bytes) = match round % 2 {
            // Whole windows of messages, up to the middle of one.
            0 => (Direction::ToServer, fastrand::usize(1..200_000)),
            _ => (Direction::ToClient, fastrand::usize(1..200)),
        };
        println!("{direction:?} after {bytes} bytes");
        scene.proxy.forget_accepted();
        scene.proxy.cut_after(direction, bytes);
        scene.commit();
        eventually("it was cut and connects again", async || scene.proxy.accepted() > 0).await;
        scene.flow.passed().await;
    }
    tokio::time::timeout(Duration::from_secs(60), scene.end(CUTS)).await.expect("ends");
}
