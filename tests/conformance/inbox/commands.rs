//! Commands are answered: a duplicate gets the answer of the first time again.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use inbox::testing::pass_time;
use inbox::{Builder, Consumer, Context, Ending, Failure, Inbox, ReplaySafe, Settings};
use message::{Event, Message, name};
use serde::{Deserialize, Serialize};
use support::broker::{Broker, Corner, rabbitmq};
use support::inbox::{Running, Store};
use support::recorded::Recorded;
use tokio::sync::Notify;
use transport::memory::MemoryBroker;
use transport::{Delivery, Health, Lane, Publisher, Subscription, Unavailable};

use super::on_both;

on_both!(
    over_memory_a_duplicate_gets_the_first_answer,
    over_rabbitmq_a_duplicate_gets_the_first_answer,
    what_is_parked_for_a_person_is_answered_without_a_result,
    a_retried_command_is_answered_once_it_is_applied,
    a_queue_that_may_not_be_answered_is_not,
    who_waits_no_more_keeps_nobody_waiting,
    a_reply_outlives_a_lost_broker,
    between_commit_and_reply_a_crash_costs_a_repeat,
    commands_in_a_batch_are_answered_each,
);

/// A command.
#[derive(Debug, Serialize, Deserialize)]
struct AuthorizePayment {
    order: String,
    cents: i64,
}

impl Event for AuthorizePayment {
    const KIND: &'static str = "payment.authorize";

    fn operation(&self) -> Cow<'_, str> {
        (&self.order).into()
    }
}

/// Its answer: a refusal is one too.
#[derive(Debug, Serialize, Deserialize)]
enum Authorized {
    Yes { number: usize },
    No { limit: i64 },
}

pub(super) fn authorizing<C: Store, B: Broker>(
    name: &str,
    db: db::Db<C>,
    broker: &Arc<B>,
    queue: &str,
) -> Builder<C> {
    let mut settings = Settings::default();
    settings.backoff = Duration::from_secs(3600);
    settings.backoff_max = Duration::from_secs(3600);
    settings.reconnect = Duration::from_millis(1);
    Inbox::new(Consumer(name), db, broker.clone(), queue)
        .on(ReplaySafe, |tx: &mut C, command: &AuthorizePayment, context: &Context<'_>| {
            match command.cents {
                0 => return Err(Failure::reject("nothing to authorize")),
                1 if context.attempt() == 1 => return Err(Failure::retry("not yet")),
                2 => return Err(Failure::early("no such order yet")),
                _ => {}
            }
            if command.cents > 1000 {
                return Ok(Authorized::No { limit: 1000 });
            }
            C::credit(tx, "authorized", command.cents)?;
            Ok(Authorized::Yes { number: C::credits(tx, "authorized").len() })
        })
        .settings(settings)
        .replies(broker.clone(), |queue| queue.contains("replies"))
}

/// A sender of commands with a queue for their answers.
pub(super) struct Caller<B> {
    pub(super) corner: Corner<B>,
    exchange: String,
    pub(super) commands: String,
    queue: String,
    replies: Box<dyn Subscription>,
}

/// Outcome, result, and the command that is answered.
pub(super) type Reply = (String, String, String);

impl<B: Broker> Caller<B> {
    pub(super) async fn new(broker: B) -> Self {
        let corner = Corner::new(broker);
        let (exchange, commands) = corner.pair().await;
        let queue = corner.queue("replies").await;
        let replies = corner.broker.subscribe(&queue, 100).await.expect("subscribes");
        Self { corner, exchange, commands, queue, replies }
    }

    /// Sends a command; returns the id of its message, which its answer names.
    async fn send(&self, order: &str, cents: i64, reply_to: &str) -> String {
        let command = AuthorizePayment { order: order.to_owned(), cents };
        let mut message = Message::from_event(&command).expect("valid");
        message.exchange.clone_from(&self.exchange);
        message.routing_key = "ok".to_owned();
        message.set_reply_to(reply_to);
        let id = message.id.to_string();
        let mut lane = self.corner.broker.open_lane().await.expect("a lane");
        lane.publish(&[message]).await.expect("published");
        id
    }

    pub(super) async fn ask(&self, order: &str, cents: i64) -> String {
        self.send(order, cents, &self.queue).await
    }

    pub(super) async fn reply(&mut self) -> Reply {
        let Delivery { headers, payload, kind, acker, .. } =
            self.replies.receive().await.expect("receives");
        acker.ack().await.expect("acknowledged");
        assert_eq!(kind.as_deref(), Some("payment.authorize.reply"));
        let header = |name| headers.get(name).unwrap_or_default().to_owned();
        assert_eq!(header(name::CORRELATION_ID), header(name::CAUSATION_ID));
        let text = String::from_utf8(payload.to_vec()).expect("UTF-8");
        (header(name::OUTCOME), text, header(name::CORRELATION_ID))
    }

    /// Nothing more has come, or is coming.
    pub(super) async fn no_reply(&mut self) {
        assert_eq!(self.corner.depth(&self.queue).await, 0);
        assert_eq!(self.replies.waiting().await.expect("counted"), 0);
        let more = tokio::time::timeout(Duration::ZERO, self.replies.receive()).await;
        assert!(more.is_err(), "{more:?}");
    }
}

pub(super) fn reply(outcome: &str, result: &str, to: &str) -> Reply {
    (outcome.to_owned(), result.to_owned(), to.to_owned())
}

async fn over_memory_a_duplicate_gets_the_first_answer<C: Store>() {
    first_answer::<C, _>(MemoryBroker::new(), MemoryBroker::clone).await;
}

async fn over_rabbitmq_a_duplicate_gets_the_first_answer<C: Store>() {
    first_answer::<C, _>(rabbitmq(), |_| rabbitmq()).await;
}

async fn first_answer<C: Store, B: Broker>(broker: B, client: impl Fn(&B) -> B) {
    let database = C::database();
    let mut caller = Caller::new(broker).await;
    let served = Arc::new(client(&caller.corner.broker));
    let builder = authorizing("replying", C::pool(&database), &served, &caller.commands);
    let inbox = builder.build().expect("builds");
    let yes = r#"{"Yes":{"number":1}}"#;
    let no = r#"{"No":{"limit":1000}}"#;
    for (order, cents, outcome, result) in [
        ("o1", 70, "applied", yes),
        ("o1", 70, "duplicate", yes),
        ("o2", 7000, "applied", no),
        ("o2", 7000, "duplicate", no),
        ("o1", 71, "conflict", "null"),
        ("o1", 70, "duplicate", yes),
    ] {
        let id = caller.ask(order, cents).await;
        inbox.run_until_idle().await.expect("runs");
        assert_eq!(caller.reply().await, reply(outcome, result, &id));
    }
    caller.no_reply().await;
    assert_eq!(C::credits(&mut C::connection(&database), "authorized"), [70]);
    caller.corner.clean().await;
}

async fn what_is_parked_for_a_person_is_answered_without_a_result<C: Store>() {
    let database = C::database();
    let mut caller = Caller::new(MemoryBroker::new()).await;
    let broker = Arc::new(caller.corner.broker.clone());
    let builder = authorizing("rejecting", C::pool(&database), &broker, &caller.commands);
    let inbox = builder.build().expect("builds");
    let id = caller.ask("o1", 0).await;
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 rejected");
    assert_eq!(caller.reply().await, reply("rejected", "null", &id));
    caller.no_reply().await;
}

async fn a_retried_command_is_answered_once_it_is_applied<C: Store>() {
    let database = C::database();
    let mut caller = Caller::new(MemoryBroker::new()).await;
    let broker = Arc::new(caller.corner.broker.clone());
    let builder = authorizing("retrying", C::pool(&database), &broker, &caller.commands);
    let inbox = builder.build().expect("builds");
    let id = caller.ask("o1", 1).await;
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 failed");
    caller.no_reply().await;
    let conn = &mut C::connection(&database);
    pass_time(conn, Consumer("retrying"), Duration::from_secs(3600)).expect("passes");
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 applied");
    assert_eq!(caller.reply().await, reply("applied", r#"{"Yes":{"number":1}}"#, &id));
    caller.no_reply().await;
}

async fn a_queue_that_may_not_be_answered_is_not<C: Store>() {
    let (database, recorded) = (C::database(), Recorded::install());
    let mut caller = Caller::new(MemoryBroker::new()).await;
    let broker = Arc::new(caller.corner.broker.clone());
    let name = format!("guarded-{}", C::NAME);
    let builder = authorizing(&name, C::pool(&database), &broker, &caller.commands);
    let inbox = builder.build().expect("builds");
    // Every queue can be reached, also that of the commands themselves.
    caller.send("o1", 70, &caller.commands).await;
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 applied");
    caller.no_reply().await;
    let count = |outcome: &str| {
        recorded
            .counter(&format!("counterfoil_inbox_replies_total consumer={name},outcome={outcome}"))
    };
    assert_eq!((count("sent"), count("not_allowed")), (Some(0), Some(1)));
}

async fn who_waits_no_more_keeps_nobody_waiting<C: Store>() {
    let (database, recorded) = (C::database(), Recorded::install());
    let caller = Caller::new(rabbitmq()).await;
    let broker = Arc::new(rabbitmq());
    let name = format!("waited-for-{}", C::NAME);
    let builder = authorizing(&name, C::pool(&database), &broker, &caller.commands);
    let inbox = builder.build().expect("builds");
    caller.send("o1", 70, "replies-of-somebody-who-left").await;
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 applied");
    let refused = format!("counterfoil_inbox_replies_total consumer={name},outcome=refused");
    assert_eq!(recorded.counter(&refused), Some(1));
    assert_eq!(caller.corner.depth(&caller.commands).await, 0);
    caller.corner.clean().await;
}

async fn a_reply_outlives_a_lost_broker<C: Store>() {
    let database = C::database();
    let mut caller = Caller::new(MemoryBroker::new()).await;
    let broker = Arc::new(caller.corner.broker.clone());
    let builder = authorizing("outliving", C::pool(&database), &broker, &caller.commands);
    let inbox = builder.build().expect("builds");
    let yes = r#"{"Yes":{"number":1}}"#;
    let id = caller.ask("o1", 70).await;
    broker.fail_next_publishes(2);
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 applied");
    assert_eq!(caller.reply().await, reply("applied", yes, &id));
    // It arrived, and the inbox could not know.
    let id = caller.ask("o1", 70).await;
    broker.lose_confirms(1);
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 duplicate");
    for _ in 0..2 {
        assert_eq!(caller.reply().await, reply("duplicate", yes, &id));
    }
    caller.no_reply().await;
}

/// Never gets as far as a lane, and says when it was asked for one.
struct Stuck(Arc<Notify>);

#[async_trait]
impl Publisher for Stuck {
    async fn open_lane(&self) -> Result<Box<dyn Lane>, Unavailable> {
        std::future::pending().await
    }

    async fn open_lane_to(&self, _queue: &str) -> Result<Box<dyn Lane>, Unavailable> {
        std::future::pending().await
    }

    async fn open_reply_lane(&self) -> Result<Box<dyn Lane>, Unavailable> {
        self.0.notify_one();
        std::future::pending().await
    }

    fn health(&self) -> Health {
        Health::Disconnected
    }

    fn heartbeat(&self) -> Option<Duration> {
        None
    }

    fn publish_timeout(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn window(&self) -> usize {
        1
    }

    async fn close(&self) {}
}

async fn between_commit_and_reply_a_crash_costs_a_repeat<C: Store>() {
    let database = C::database();
    let mut caller = Caller::new(MemoryBroker::new()).await;
    let broker = Arc::new(caller.corner.broker.clone());
    let inbox = || authorizing("crashing", C::pool(&database), &broker, &caller.commands);
    let id = caller.ask("o1", 70).await;
    let asked = Arc::new(Notify::new());
    let doomed = inbox().replies(Arc::new(Stuck(asked.clone())), |_| true).build().expect("builds");
    let running = tokio::spawn(doomed.run(std::future::pending()));
    asked.notified().await;
    assert_eq!(C::credits(&mut C::connection(&database), "authorized"), [70], "committed");
    assert_eq!(broker.unacked(&caller.commands), 1, "not acknowledged");
    running.abort();
    assert!(running.await.is_err());
    let next = inbox().build().expect("builds");
    assert_eq!(next.run_until_idle().await.expect("runs").to_string(), "1 duplicate");
    assert_eq!(caller.reply().await, reply("duplicate", r#"{"Yes":{"number":1}}"#, &id));
    caller.no_reply().await;
}

async fn commands_in_a_batch_are_answered_each<C: Store>() {
    let database = C::database();
    let mut caller = Caller::new(MemoryBroker::new()).await;
    let broker = Arc::new(caller.corner.broker.clone());
    for number in 0..5 {
        caller.ask(&format!("o{number}"), 70).await;
    }
    let builder = authorizing("batching", C::pool(&database), &broker, &caller.commands);
    let mut running = Running::start(builder.batch(10).concurrency(1));
    assert_eq!(running.endings(5).await, [Ending::Applied; 5]);
    let mut results = Vec::new();
    for _ in 0..5 {
        let (outcome, result, _) = caller.reply().await;
        assert_eq!(outcome, "applied");
        results.push(result);
    }
    results.sort();
    let expected = [1, 2, 3, 4, 5].map(|number| format!(r#"{{"Yes":{{"number":{number}}}}}"#));
    assert_eq!(results, expected);
    caller.no_reply().await;
    assert_eq!(running.stop().await, []);
}
