//! The broker is killed, restarted in good order and frozen while messages flow: the relay notices,
//! comes back by itself, and nobody's message counts as refused.

use support::broker::Corner;
use support::eventually;
use support::flow::{Arrived, Flow, IN_FLIGHT, broker};
use support::node::Node;
use transport::rabbitmq::RabbitMq;
use transport::{ExchangeKind, Health, Publisher};

const KEYS: usize = 50;
const PER_ROUND: usize = 1_500;

#[tokio::test(flavor = "multi_thread")]
async fn while_messages_flow() {
    let mut node = Node::start("");
    let url = node.url();
    let client = || RabbitMq::new(&broker(&url)).expect("valid");
    let corner = Corner::new(client());
    let exchange = corner.exchange("facts", ExchangeKind::Fanout).await;
    let queue = corner.queue("facts").await;
    corner.bind(&exchange, &queue, "").await;
    let mut flow = Flow::new();
    let relay = flow.relay(&url);
    let mut arrived = Arrived::new();

    // In good order first: a broker killed right after a quorum queue was declared may come back
    // with the queue's name and without the queue, which confirms nothing ever after.
    for trouble in ["restarted", "killed", "frozen"] {
        flow.commit("key", KEYS, PER_ROUND, |draft| draft.exchange(&exchange));
        let client = client();
        let looking = Corner::new(client);
        eventually("the round flows", async || looking.depth(&queue).await > 0).await;
        match trouble {
            "killed" => node.kill(),
            "restarted" => drop(node.ctl(&["stop_app"])),
            _ => node.freeze(),
        }
        flow.commit("key", KEYS, PER_ROUND, |draft| draft.exchange(&exchange));
        // A frozen broker leaves its connections open; the relay must find out all the same.
        eventually("the relay has noticed", async || {
            relay.publisher.health() == Health::Disconnected
        })
        .await;
        match trouble {
            "killed" => node.restart(),
            "restarted" => drop(node.ctl(&["start_app"])),
            _ => node.thaw(),
        }
        flow.passed().await;
        assert_eq!(flow.held(), [], "{trouble}: an outage is nobody's refusal");
        arrived.repeats = 0;
        arrived.drain(&RabbitMq::new(&broker(&url)).expect("valid"), &queue).await;
        assert_eq!(arrived.last, flow.committed("key"), "{trouble}: every message arrived");
        println!("{trouble}: {} repeats", arrived.repeats);
        assert!(arrived.repeats <= IN_FLIGHT, "{trouble}: {} repeats", arrived.repeats);
    }
    relay.stop().await;
}
