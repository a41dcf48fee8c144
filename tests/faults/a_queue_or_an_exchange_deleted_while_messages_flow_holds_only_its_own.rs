//! Somebody deletes a queue, then an exchange, while messages flow: what was meant for it waits with
//! its reason, everything else goes on, and the waiting messages arrive in order once it is back.

use support::broker::{Corner, rabbitmq};
use support::eventually;
use support::flow::{Arrived, Flow, IN_FLIGHT};
use support::services::amqp_url;
use transport::{ExchangeKind, Topology};

const GOOD: usize = 3_000;
const DOOMED: usize = 60;

/// Good messages on both sides of the doomed ones, ten of each key.
fn commit(flow: &mut Flow, good: &str, doomed: &str, key: &str) {
    for part in 0..3 {
        flow.commit("good", 30, GOOD / 3, |draft| draft.exchange(good).routing_key("good"));
        if part < 2 {
            flow.commit("doomed", 6, DOOMED / 2, |draft| draft.exchange(doomed).routing_key(key));
        }
    }
}

/// The heads of keys have been tried again and again, and nothing else was sent with them.
async fn tried_alone(flow: &mut Flow, corner: &Corner<transport::rabbitmq::RabbitMq>, good: &str) {
    let before = corner.depth(good).await;
    eventually("held messages are tried on", async || {
        flow.held().iter().any(|held| held.attempts >= 4)
    })
    .await;
    assert_eq!(corner.depth(good).await, before, "neighbours are not repeated with each attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue() {
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("facts", ExchangeKind::Direct).await;
    let good = corner.queue("good").await;
    let doomed = corner.queue("doomed").await;
    corner.bind(&exchange, &good, "good").await;
    corner.bind(&exchange, &doomed, "doomed").await;
    let mut flow = Flow::new();
    let relay = flow.relay(&amqp_url());
    commit(&mut flow, &exchange, &exchange, "doomed");
    flow.published().await;
    let mut arrived = Arrived::new();
    // What was in it would be gone with it: the broker had said that it has it.
    arrived.until(&corner.broker, &doomed, &flow.committed("doomed")).await;

    corner.broker.delete_queue(&doomed).await.expect("deletes");
    commit(&mut flow, &exchange, &exchange, "doomed");
    flow.passed().await;
    let held = flow.held();
    assert_eq!(held.len(), DOOMED, "{held:?}");
    for held in &held {
        assert!(["unroutable", "behind", "released"].contains(&&*held.reason), "{held:?}");
        assert_eq!(held.state, "waiting", "{held:?}");
    }
    assert!(held.iter().any(|held| held.last_error.contains("bind one")), "{held:?}");
    tried_alone(&mut flow, &corner, &good).await;

    let again = corner.queue("doomed").await;
    corner.bind(&exchange, &again, "doomed").await;
    flow.published().await;
    relay.stop().await;
    arrived.drain(&corner.broker, &doomed).await;
    assert_eq!(arrived.last, flow.committed("doomed"), "everything arrived, in order");
    assert_eq!(arrived.repeats, 0);
    let mut arrived = Arrived::new();
    arrived.drain(&corner.broker, &good).await;
    assert_eq!((arrived.last, arrived.repeats), (flow.committed("good"), 0));
    corner.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange() {
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("facts", ExchangeKind::Direct).await;
    let fragile = corner.exchange("fragile", ExchangeKind::Direct).await;
    let good = corner.queue("good").await;
    let doomed = corner.queue("doomed").await;
    corner.bind(&exchange, &good, "good").await;
    corner.bind(&fragile, &doomed, "doomed").await;
    let mut flow = Flow::new();
    let relay = flow.relay(&amqp_url());
    for part in 0..40 {
        // In small pieces, so that every chunk on its way holds both.
        flow.commit("good", 30, 75, |draft| draft.exchange(&exchange).routing_key("good"));
        flow.commit("doomed", 6, 3, |draft| draft.exchange(&fragile).routing_key("doomed"));
        if part == 15 {
            eventually("messages flow", async || corner.depth(&good).await > 0).await;
            corner.broker.delete_exchange(&fragile).await.expect("deletes");
        }
    }
    flow.passed().await;
    let held = flow.held();
    assert!(held.len() >= 24 * 3, "{held:?}");
    for held in &held {
        assert!(["exchange_missing", "behind", "released"].contains(&&*held.reason), "{held:?}");
        assert!(held.ordering_key.as_ref().is_some_and(|key| key.starts_with("doomed-")));
    }
    assert!(held.iter().any(|held| held.last_error.contains("declare it")), "{held:?}");
    tried_alone(&mut flow, &corner, &good).await;

    corner.exchange("fragile", ExchangeKind::Direct).await;
    corner.bind(&fragile, &doomed, "doomed").await;
    flow.published().await;
    relay.stop().await;
    let mut arrived = Arrived::new();
    arrived.drain(&corner.broker, &doomed).await;
    assert_eq!(arrived.last, flow.committed("doomed"), "everything arrived, in order");
    let mut neighbours = Arrived::new();
    neighbours.drain(&corner.broker, &good).await;
    assert_eq!(neighbours.last, flow.committed("good"), "everything arrived, in order");
    println!("{} repeats, {} of neighbours", arrived.repeats, neighbours.repeats);
    // A chunk's message that closes the channel sends its lane's part again.
    assert!(arrived.repeats + neighbours.repeats <= 2 * IN_FLIGHT, "{}", neighbours.repeats);
    corner.clean().await;
}
