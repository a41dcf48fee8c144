//! A quorum queue whose leader does not answer the broker in time has no messages, says the broker. Who asks
//! how many there are is told the truth all the same: an inbox that works until nothing is left would stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::broker::{Corner, message, rabbit_settings};
use support::node::Node;
use tokio::task::{JoinHandle, spawn_blocking};
use transport::Subscriber;
use transport::rabbitmq::RabbitMq;

/// How long the broker waits for a leader.
const PATIENCE: Duration = Duration::from_millis(250);

/// Suspends the leader of each queue so often for so many milliseconds.
fn suspend(node: &Arc<Node>, times: u32, millis: u32) -> JoinHandle<()> {
    let expression = format!(
        "Leaders = [whereis(element(1, amqqueue:get_pid(Queue))) || Queue <- rabbit_amqqueue:list()],
         [begin
             erlang:suspend_process(Leader), timer:sleep({millis}),
             erlang:resume_process(Leader), timer:sleep(150)
          end || _ <- lists:seq(1, {times}), Leader <- Leaders],
         length(Leaders)."
    );
    let node = node.clone();
    spawn_blocking(move || assert_eq!(node.ctl(&["eval", &expression]).trim(), "1"))
}

/// Counts until the leader is left alone; how long the slowest answer took.
async fn count(leader: JoinHandle<()>, ready: u64, mut ask: impl AsyncFnMut() -> u64) -> Duration {
    let mut longest = Duration::ZERO;
    while !leader.is_finished() {
        let begun = Instant::now();
        assert_eq!(ask().await, ready);
        longest = longest.max(begun.elapsed());
    }
    leader.await.expect("is suspended");
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn by_whoever_counts() {
    support::bounded(async {
        let node = Arc::new(Node::start(""));
        let corner = Corner::new(RabbitMq::new(&rabbit_settings(node.url())).expect("valid"));
        let (exchange, queue) = corner.pair().await;
        let batch: Vec<_> = (0..5).map(|number| message(&exchange, "ok", number)).collect();
        corner.publish(&batch).await;

        let leader = suspend(&node, 8, 280);
        let longest = count(leader, 5, async || corner.depth(&queue).await).await;
        assert!(longest > PATIENCE, "it always answered in time");

        // A consumer of the queue knows better than to believe it, however long that goes on.
        let mut subscription = corner.broker.subscribe(&queue, 1).await.expect("subscribed");
        let held = subscription.receive().await.expect("a delivery");
        let leader = suspend(&node, 2, 2_000);
        let waiting = async || subscription.waiting().await.expect("counted");
        let longest = count(leader, 4, waiting).await;
        assert!(longest > PATIENCE * 5, "it always answered in time");
        drop((held, subscription));
        corner.clean().await;
    })
    .await;
}
