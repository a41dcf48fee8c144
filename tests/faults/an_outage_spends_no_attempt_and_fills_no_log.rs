//! The broker is away while thousands of messages wait: no attempt is spent, nothing is held, the
//! cursor stays, the relay program tries on at a measured pace with one line for each try, and
//! everything arrives when the broker is back.

use std::time::Instant;

use support::broker::{Corner, rabbitmq};
use support::eventually;
use support::flow::{Arrived, Flow, LANES};
use support::process::Process;
use support::proxy::Proxy;
use support::services::amqp_url;
use transport::ExchangeKind;

#[tokio::test(flavor = "multi_thread")]
async fn of_the_broker() {
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("facts", ExchangeKind::Fanout).await;
    let queue = corner.queue("facts").await;
    corner.bind(&exchange, &queue, "").await;
    let (proxy, url) = Proxy::to_url(&amqp_url()).await;
    let mut flow = Flow::new();
    let mut relay = Process::start(
        "relay",
        &["run"],
        &[("RELAY_DATABASE_URL", &flow.database.url), ("RELAY_AMQP_URL", &url)],
    );
    relay.wait_for("relaying");
    flow.commit("key", 100, 1_000, |draft| draft.exchange(&exchange));
    flow.published().await;

    let since = Instant::now();
    proxy.forget_accepted();
    proxy.refuse(true);
    proxy.cut();
    flow.commit("key", 100, 10_000, |draft| draft.exchange(&exchange));
    eventually("the relay tries on", async || proxy.accepted() >= 9).await;
    let (tries, most) = (proxy.accepted(), 8 + since.elapsed().as_millis() / 750);
    assert!(tries as u128 <= most, "{tries} tries where {most} are fair");
    assert_eq!((flow.pending(), flow.held()), (10_000, vec![]));
    proxy.refuse(false);
    flow.published().await;
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);

    let warnings = relay.output.lines().filter(|line| line.contains("WARN")).count();
    println!("{tries} tries, {warnings} warnings");
    // One for each try, and the loss itself: once by each connection and once by the relay. Some tries
    // came after the count was taken.
    assert!(warnings <= tries + LANES + 4, "{}", relay.output);
    // The client has its own opinion of a lost connection.
    let ours = |line: &&str| line.contains("ERROR") && !line.contains("lapin");
    assert_eq!(relay.output.lines().find(ours), None, "{}", relay.output);
    let mut arrived = Arrived::new();
    arrived.drain(&corner.broker, &queue).await;
    assert_eq!((arrived.last, arrived.repeats), (flow.committed("key"), 0));
    corner.clean().await;
}
