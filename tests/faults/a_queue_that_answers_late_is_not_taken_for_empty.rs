//! A quorum queue whose leader does not answer the broker in time has no messages, says the broker. Who asks
//! how many there are is told the truth all the same: an inbox that works until nothing is left would stop.

use std::time::{Duration, Instant};

use support::broker::{Corner, message, rabbit_settings};
use support::node::Node;
use tokio::task::spawn_blocking;
use transport::Subscriber;
use transport::rabbitmq::RabbitMq;

/// The broker waits for 250 ms.
const SUSPEND: &str = "
    Queues = [whereis(element(1, amqqueue:get_pid(Queue))) || Queue <- rabbit_amqqueue:list()],
    [begin
        erlang:suspend_process(Leader), timer:sleep(280), erlang:resume_process(Leader), timer:sleep(150)
     end || _ <- lists:seq(1, 15), Leader <- Queues],
    ok.";

#[tokio::test(flavor = "multi_thread")]
async fn by_whoever_counts() {
    support::bounded(async {
        let node = Node::start("");
        let corner = Corner::new(RabbitMq::new(&rabbit_settings(node.url())).expect("valid"));
        let (exchange, queue) = corner.pair().await;
        let batch: Vec<_> = (0..5).map(|number| message(&exchange, "ok", number)).collect();
        corner.publish(&batch).await;
        let mut subscription = corner.broker.subscribe(&queue, 1).await.expect("subscribed");
        let held = subscription.receive().await.expect("a delivery");

        let suspending = spawn_blocking(move || (node.ctl(&["eval", SUSPEND]), node));
        let mut longest = Duration::ZERO;
        while !suspending.is_finished() {
            let begun = Instant::now();
            assert_eq!(corner.depth(&queue).await, 4);
            assert_eq!(subscription.waiting().await.expect("counted"), 4);
            longest = longest.max(begun.elapsed());
        }
        let (said, _node) = suspending.await.expect("no panic");
        assert_eq!(said.trim(), "ok");
        assert!(longest > Duration::from_millis(250), "it always answered in time");
        drop((held, subscription));
        corner.clean().await;
    })
    .await;
}
