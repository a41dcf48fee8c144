//! A corner of a broker that belongs to one test.

use std::sync::Mutex;
use std::time::SystemTime;

use message::{Headers, Message, MessageId};
use transport::rabbitmq::{RabbitMq, RabbitSettings};
use transport::{
    Binding, Delivery, Exchange, ExchangeKind, Publisher, Queue, Subscriber, Subscription,
    Topology, Verdict,
};

use crate::services;

/// Everything a broker can do, as one bound.
pub trait Broker: Publisher + Subscriber + Topology {}
impl<T: Publisher + Subscriber + Topology> Broker for T {}

/// The RabbitMQ of the test run.
#[must_use]
pub fn rabbitmq() -> RabbitMq {
    RabbitMq::new(&rabbit_settings(services::amqp_url())).expect("AMQP_URL is valid")
}

/// The defaults for a broker that the test run names: wherever it is, it may be reached.
#[must_use]
pub fn rabbit_settings(url: impl Into<String>) -> RabbitSettings {
    let mut settings = RabbitSettings::new(url);
    settings.allow_plaintext = true;
    settings
}

/// Exchanges and queues under names no other test has. [`clean`](Corner::clean) removes them.
pub struct Corner<B> {
    /// The broker itself.
    pub broker: B,
    prefix: String,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    exchanges: Vec<String>,
    queues: Vec<String>,
}

impl<B: Broker> Corner<B> {
    /// A corner of `broker`.
    pub fn new(broker: B) -> Self {
        let prefix = format!("counterfoil-test-{}", uuid::Uuid::now_v7().simple());
        Self { broker, prefix, made: Mutex::default() }
    }

    /// Publishes what the broker must confirm.
    pub async fn publish(&self, batch: &[Message]) {
        let mut lane = self.broker.open_lane().await.expect("a lane");
        let verdicts = lane.publish(batch).await.expect("settled");
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Confirmed), "{verdicts:?}");
    }

    /// A name that nobody else uses.
    pub fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// Declares an exchange.
    pub async fn exchange(&self, what: &str, kind: ExchangeKind) -> String {
        self.exchange_named(self.name(what), kind).await
    }

    /// Declares an exchange under a name of the test's choice.
    pub async fn exchange_named(&self, name: String, kind: ExchangeKind) -> String {
        let exchange = Exchange { name: name.clone(), kind };
        self.broker.declare_exchange(&exchange).await.expect("the exchange is declared");
        self.made.lock().unwrap().exchanges.push(name.clone());
        name
    }

    /// Declares a quorum queue.
    pub async fn queue(&self, what: &str) -> String {
        self.queue_with(what, |_| ()).await
    }

    /// Declares a queue after a change to its settings.
    pub async fn queue_with(&self, what: &str, change: impl FnOnce(&mut Queue)) -> String {
        let mut queue = Queue::new(self.name(what));
        change(&mut queue);
        self.broker.declare_queue(&queue).await.expect("the queue is declared");
        self.made.lock().unwrap().queues.push(queue.name.clone());
        queue.name
    }

    /// Binds.
    pub async fn bind(&self, exchange: &str, queue: &str, routing_key: &str) {
        let binding = Binding {
            exchange: exchange.into(),
            queue: queue.into(),
            routing_key: routing_key.into(),
        };
        self.broker.bind(&binding).await.expect("the queue is bound");
    }

    /// A direct exchange and a quorum queue bound to it with the key `ok`.
    pub async fn pair(&self) -> (String, String) {
        let exchange = self.exchange("exchange", ExchangeKind::Direct).await;
        let queue = self.queue("queue").await;
        self.bind(&exchange, &queue, "ok").await;
        (exchange, queue)
    }

    /// A fanout exchange and a quorum queue that gets everything from it.
    pub async fn fanout(&self) -> (String, String) {
        let exchange = self.exchange("facts", ExchangeKind::Fanout).await;
        let queue = self.queue("facts").await;
        self.bind(&exchange, &queue, "").await;
        (exchange, queue)
    }

    /// How many messages are ready.
    pub async fn depth(&self, queue: &str) -> u64 {
        self.broker.queue_depth(queue).await.expect("the broker answers").expect("the queue exists")
    }

    /// Removes what was declared and closes the connections. A test that fails leaves its corner
    /// behind for inspection.
    pub async fn clean(self) {
        let made = self.made.into_inner().unwrap();
        for queue in made.queues {
            // RabbitMQ can drop the channel of a deletion right after a flood; once more, it is done.
            if self.broker.delete_queue(&queue).await.is_err() {
                self.broker.delete_queue(&queue).await.expect("the queue is deleted");
            }
        }
        for exchange in made.exchanges {
            self.broker.delete_exchange(&exchange).await.expect("the exchange is deleted");
        }
        Publisher::close(&self.broker).await;
        Subscriber::close(&self.broker).await;
    }
}

/// A message whose operation says which one it is.
#[must_use]
pub fn message(exchange: &str, routing_key: &str, operation: impl ToString) -> Message {
    Message {
        id: MessageId::new(),
        kind: "test.happened".into(),
        operation: operation.to_string(),
        ordering_key: None,
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        headers: Headers::new(),
        content_type: Message::JSON.into(),
        payload: "{}".into(),
        created_at: SystemTime::now(),
    }
}

/// The operation of a delivery.
#[must_use]
pub fn operation(delivery: &Delivery) -> String {
    delivery.headers.get(message::name::OPERATION).expect("an operation").to_owned()
}

/// Receives and acknowledges `count` deliveries; their operations in order of arrival.
pub async fn drain(subscription: &mut dyn Subscription, count: usize) -> Vec<String> {
    let mut operations = Vec::with_capacity(count);
    for _ in 0..count {
        let delivery = subscription.receive().await.expect("a delivery");
        operations.push(operation(&delivery));
        delivery.acker.ack().await.expect("acknowledged");
    }
    operations
}
