use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use message::{Headers, OperationKey, name};

use crate::Unavailable;

/// Opens subscriptions and reconnects when asked for one after a failure.
#[async_trait]
pub trait Subscriber: Send + Sync + 'static {
    /// Starts to consume from a queue with at most `prefetch` deliveries unacknowledged. A prefetch
    /// of 0 is taken as 1: unlimited would move a whole backlog into this process.
    ///
    /// # Errors
    /// [`Unavailable`]; the caller waits and asks again.
    async fn subscribe(
        &self,
        queue: &str,
        prefetch: u16,
    ) -> Result<Box<dyn Subscription>, Unavailable>;

    /// Closes the connection politely. Bounded in time; calling it twice is harmless.
    async fn close(&self);
}

/// A running consumer. Dropping it gives every unacknowledged delivery back to the queue.
#[async_trait]
pub trait Subscription: Send {
    /// The next delivery. Waits as long as it takes; safe to cancel without losing a delivery.
    ///
    /// # Errors
    /// [`Unavailable`] when the consumer ended; deliveries not yet acknowledged come again.
    async fn receive(&mut self) -> Result<Delivery, Unavailable>;

    /// How many messages lie ready in the queue. One that is counted no more may still be on its way here: only
    /// if the count is 0, nothing can be [received](Self::receive), and a moment later both are so again, nothing
    /// is there. Waits while the queue cannot be used.
    ///
    /// # Errors
    /// [`Unavailable`] when the consumer ended, or nobody could tell in time.
    async fn waiting(&mut self) -> Result<u64, Unavailable>;
}

/// One delivery as it came off the wire. Nothing is promised of a foreign producer's message: any
/// property can be missing.
#[derive(Debug)]
pub struct Delivery {
    /// The `message_id` property.
    pub message_id: Option<String>,
    /// The `type` property.
    pub kind: Option<String>,
    /// The exchange it was published to.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// The headers, as text. `correlation_id` appears as `counterfoil-correlation-id`,
    /// `reply_to` as `counterfoil-reply-to`.
    pub headers: Headers,
    /// The `content_type` property.
    pub content_type: Option<String>,
    /// The body.
    pub payload: Bytes,
    /// The `timestamp` property, in whole seconds: when the producer says that it made the message.
    pub timestamp: Option<SystemTime>,
    /// The broker's hint that it was delivered before. Only a hint.
    pub redelivered: bool,
    /// Answers the delivery.
    pub acker: Box<dyn Acknowledge>,
}

impl Delivery {
    /// The business operation named by kind, scope and operation headers; `None` where the producer
    /// sent none or an invalid one.
    #[must_use]
    pub fn operation_key(&self) -> Option<OperationKey> {
        self.headers.operation_key(self.kind.as_deref())
    }

    /// The ordering key header.
    #[must_use]
    pub fn ordering_key(&self) -> Option<&str> {
        self.headers.get(name::ORDERING_KEY)
    }
}

/// Answers one delivery. Dropping it unanswered leaves the delivery unacknowledged: it comes again
/// when the subscription ends.
#[async_trait]
pub trait Acknowledge: Send + Sync + std::fmt::Debug {
    /// The message is dealt with and may be forgotten.
    ///
    /// # Errors
    /// [`Unavailable`]: the message will be delivered again.
    async fn ack(self: Box<Self>) -> Result<(), Unavailable>;

    /// The same for this message and all that its subscription delivered before it and nobody has
    /// answered yet. Their own answers must not be given any more.
    ///
    /// # Errors
    /// [`Unavailable`]: the messages will be delivered again.
    async fn ack_through(self: Box<Self>) -> Result<(), Unavailable>;

    /// Gives the message back for another delivery.
    ///
    /// # Errors
    /// [`Unavailable`]: it comes again anyway.
    async fn requeue(self: Box<Self>) -> Result<(), Unavailable>;
}
