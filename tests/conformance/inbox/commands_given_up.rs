//! Who waits for an answer is told so where there will never be one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use inbox::Consumer;
use inbox::testing::pass_time;
use message::Message;
use support::inbox::Store;
use support::recorded::Recorded;
use transport::memory::MemoryBroker;
use transport::{Health, Lane, Poison, Publisher, Refusal, Unavailable, Verdict};

use super::commands::{Caller, authorizing, reply};
use super::on_both;

on_both!(
    a_command_whose_time_never_came_is_answered_then,
    a_result_that_no_broker_carries_is_answered_without_it,
    a_reply_that_is_refused_to_somebody_who_waits_is_lost_and_counted_so,
);

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn a_command_whose_time_never_came_is_answered_then<C: Store>() {
    let database = C::database();
    let mut caller = Caller::new(MemoryBroker::new()).await;
    let broker = Arc::new(caller.corner.broker.clone());
    let builder = authorizing("waiting", C::pool(&database), &broker, &caller.commands);
    let inbox = builder.build().expect("builds");
    let id = caller.ask("o1", 2).await;
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 early");
    caller.no_reply().await;
    let conn = &mut C::connection(&database);
    pass_time(conn, Consumer("waiting"), DAY).expect("passes");
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 early");
    assert_eq!(caller.reply().await, reply("early", "null", &id));
    caller.no_reply().await;
}

async fn a_result_that_no_broker_carries_is_answered_without_it<C: Store>() {
    let (database, recorded) = (C::database(), Recorded::install());
    let mut caller = Caller::new(MemoryBroker::new()).await;
    let broker = Arc::new(caller.corner.broker.clone());
    let name = format!("narrow-{}", C::NAME);
    let builder = authorizing(&name, C::pool(&database), &broker, &caller.commands)
        .replies(Arc::new(Narrow(broker.clone())), |queue| queue.contains("replies"));
    let inbox = builder.build().expect("builds");
    let id = caller.ask("o1", 70).await;
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 applied");
    assert_eq!(caller.reply().await, reply("unsendable", "null", &id));
    caller.no_reply().await;
    assert_eq!(C::credits(&mut C::connection(&database), "authorized"), [70]);
    for (outcome, count) in [("unsendable", 1), ("sent", 1), ("refused", 0)] {
        let metric = format!("counterfoil_inbox_replies_total consumer={name},outcome={outcome}");
        assert_eq!(recorded.counter(&metric), Some(count), "{outcome}");
    }
}

/// A broker that carries no more than four bytes.
struct Narrow(Arc<MemoryBroker>);

struct NarrowLane(Box<dyn Lane>);

#[async_trait]
impl Lane for NarrowLane {
    async fn publish(&mut self, messages: &[Message]) -> Result<Vec<Verdict>, Unavailable> {
        let mut verdicts = Vec::new();
        for message in messages {
            let fits = message.payload.len() <= "null".len();
            let too_large = || Verdict::Poison(Poison::TooLarge { text: "too large".to_owned() });
            verdicts.push(match fits {
                true => self.0.publish(std::slice::from_ref(message)).await?.remove(0),
                false => too_large(),
            });
        }
        Ok(verdicts)
    }
}

#[async_trait]
impl Publisher for Narrow {
    async fn open_lane(&self) -> Result<Box<dyn Lane>, Unavailable> {
        self.0.open_lane().await
    }

    async fn open_lane_to(&self, queue: &str) -> Result<Box<dyn Lane>, Unavailable> {
        self.0.open_lane_to(queue).await
    }

    async fn open_reply_lane(&self) -> Result<Box<dyn Lane>, Unavailable> {
        Ok(Box::new(NarrowLane(self.0.open_reply_lane().await?)))
    }

    fn health(&self) -> Health {
        self.0.health()
    }

    fn heartbeat(&self) -> Option<Duration> {
        self.0.heartbeat()
    }

    fn publish_timeout(&self) -> Duration {
        self.0.publish_timeout()
    }

    fn window(&self) -> usize {
        self.0.window()
    }

    async fn close(&self) {}
}

async fn a_reply_that_is_refused_to_somebody_who_waits_is_lost_and_counted_so<C: Store>() {
    let (database, recorded) = (C::database(), Recorded::install());
    let mut caller = Caller::new(MemoryBroker::new()).await;
    let broker = Arc::new(caller.corner.broker.clone());
    let name = format!("refusing-{}", C::NAME);
    let builder = authorizing(&name, C::pool(&database), &broker, &caller.commands);
    let inbox = builder.build().expect("builds");
    let count = |outcome: &str| {
        recorded
            .counter(&format!("counterfoil_inbox_replies_total consumer={name},outcome={outcome}"))
    };
    for (refusal, lost) in
        [(Refusal::Nacked, 1), (Refusal::AccessRefused { text: "403".to_owned() }, 2)]
    {
        caller.ask("o1", 70).await;
        broker.script(move |_| Some(Verdict::Refused(refusal.clone())));
        inbox.run_until_idle().await.expect("runs");
        broker.script(|_| None);
        caller.no_reply().await;
        assert_eq!((count("lost"), count("refused")), (Some(lost), Some(0)));
    }
    // Whoever asks again is told.
    caller.ask("o1", 70).await;
    inbox.run_until_idle().await.expect("runs");
    assert_eq!(count("sent"), Some(1));
}
