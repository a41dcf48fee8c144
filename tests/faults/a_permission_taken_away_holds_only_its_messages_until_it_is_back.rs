//! The relay's user may write and nothing else, and loses even that: first on one exchange, then
//! altogether. The first holds the messages of that exchange; the second is an outage, which costs no
//! message anything and ends no relay.

use support::broker::Corner;
use support::eventually;
use support::flow::{Arrived, Flow, IN_FLIGHT, broker};
use support::node::Node;
use transport::rabbitmq::RabbitMq;
use transport::{ExchangeKind, Health, Publisher};

#[tokio::test(flavor = "multi_thread")]
async fn on_one_exchange_and_on_all() {
    let node = Node::start("");
    let corner = Corner::new(RabbitMq::new(&broker(&node.url())).expect("valid"));
    let open = corner.exchange_named("open".to_owned(), ExchangeKind::Fanout).await;
    let closed = corner.exchange_named("closed".to_owned(), ExchangeKind::Fanout).await;
    let good = corner.queue("good").await;
    let doomed = corner.queue("doomed").await;
    corner.bind(&open, &good, "").await;
    corner.bind(&closed, &doomed, "").await;
    // To configure and to read: nothing. A relay that declared anything would fail here.
    let allow = |write: &str| node.ctl(&["set_permissions", "relay", "^$", write, "^$"]);
    // A channel remembers for a while what its user may do.
    let reconnect = || node.ctl(&["close_all_user_connections", "relay", "permissions changed"]);
    node.ctl(&["add_user", "relay", "s3cret"]);
    allow(".*");
    let mut flow = Flow::new();
    let relay = flow.relay(&node.url_of("relay", "s3cret"));
    let commit = |flow: &mut Flow| {
        flow.commit("good", 30, 1_000, |draft| draft.exchange(&open));
        flow.commit("doomed", 6, 60, |draft| draft.exchange(&closed));
        flow.commit("good", 30, 1_000, |draft| draft.exchange(&open));
    };
    commit(&mut flow);
    flow.published().await;

    allow("^open$");
    reconnect();
    commit(&mut flow);
    flow.passed().await;
    let held = flow.held();
    assert_eq!(held.len(), 60, "{held:?}");
    for held in &held {
        assert!(["access_refused", "behind", "released"].contains(&&*held.reason), "{held:?}");
        assert_eq!(held.state, "waiting", "{held:?}");
    }
    assert!(held.iter().any(|held| held.last_error.contains("grant write")), "{held:?}");
    allow(".*");
    flow.published().await;

    node.ctl(&["clear_permissions", "relay"]);
    reconnect();
    commit(&mut flow);
    eventually("the relay has noticed", async || relay.publisher.health() == Health::Disconnected)
        .await;
    let before = (flow.pending(), flow.held());
    assert_eq!(before, (2_060, vec![]), "nobody may publish, and nobody's message is to blame");
    allow(".*");
    flow.published().await;
    relay.stop().await;

    let mut repeats = 0;
    for (queue, name) in [(&good, "good"), (&doomed, "doomed")] {
        let mut arrived = Arrived::new();
        arrived.drain(&corner.broker, queue).await;
        assert_eq!(arrived.last, flow.committed(name), "everything arrived, in order");
        repeats += arrived.repeats;
    }
    println!("{repeats} repeats");
    assert!(repeats <= 2 * IN_FLIGHT, "{repeats} repeats");
}
