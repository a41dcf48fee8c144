use async_trait::async_trait;

use crate::Unavailable;

/// Declares exchanges, queues and bindings. The relay never does (its user needs no `configure`
/// right); services and tests do at their start.
#[async_trait]
pub trait Topology: Send + Sync + 'static {
    /// Declares a durable exchange. The same declaration twice is harmless.
    ///
    /// # Errors
    /// [`TopologyError`].
    async fn declare_exchange(&self, exchange: &Exchange) -> Result<(), TopologyError>;

    /// Declares a durable queue. The same declaration twice is harmless.
    ///
    /// # Errors
    /// [`TopologyError`].
    async fn declare_queue(&self, queue: &Queue) -> Result<(), TopologyError>;

    /// Binds a queue to an exchange.
    ///
    /// # Errors
    /// [`TopologyError`].
    async fn bind(&self, binding: &Binding) -> Result<(), TopologyError>;

    /// Deletes a queue with what is in it. A missing queue is no error.
    ///
    /// # Errors
    /// [`TopologyError`].
    async fn delete_queue(&self, queue: &str) -> Result<(), TopologyError>;

    /// Deletes an exchange. A missing exchange is no error.
    ///
    /// # Errors
    /// [`TopologyError`].
    async fn delete_exchange(&self, exchange: &str) -> Result<(), TopologyError>;

    /// How many messages are ready in a queue; `None` where there is no such queue. 0 may also mean that the
    /// queue cannot be used at the moment: RabbitMQ says so of a quorum queue without a leader.
    ///
    /// # Errors
    /// [`TopologyError`].
    async fn queue_depth(&self, queue: &str) -> Result<Option<u64>, TopologyError>;

    /// Whether an exchange exists. Needs no permission and declares nothing, so a relay can check
    /// its exchanges at start.
    ///
    /// # Errors
    /// [`TopologyError`].
    async fn exchange_exists(&self, exchange: &str) -> Result<bool, TopologyError>;
}

/// A durable exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
}

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    /// To queues bound with exactly the routing key.
    Direct,
    /// To every bound queue.
    Fanout,
    /// To queues whose pattern matches: `*` stands for one word, `#` for any number.
    Topic,
}

/// A durable queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// How it is kept.
    pub kind: QueueKind,
    /// Most ready messages it holds; `None` (default) for no bound.
    pub max_length: Option<u32>,
    /// What happens to a message beyond `max_length`.
    pub overflow: Overflow,
    /// Whether all goes to one of its consumers, the one that came first, and to the next when that one
    /// is gone (`x-single-active-consumer`). Default false: they compete. Set it for a queue that several
    /// processes consume in order.
    pub single_active_consumer: bool,
}

impl Queue {
    /// A quorum queue without bound: the right choice for messages that must not be lost.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: QueueKind::Quorum,
            max_length: None,
            overflow: Overflow::DropHead,
            single_active_consumer: false,
        }
    }
}

/// How a queue is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Replicated by consensus.
    Quorum,
    /// On one node.
    Classic,
}

/// What happens to a message that a full queue gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest is dropped: loses messages by design.
    DropHead,
    /// The new one is refused with a nack.
    RejectPublish,
}

/// A queue's interest in an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The exchange.
    pub exchange: String,
    /// The queue.
    pub queue: String,
    /// Routing key or topic pattern.
    pub routing_key: String,
}

/// Why something could not be declared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// The broker cannot be used at present.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// It exists with other arguments.
    #[error("{object} exists with other arguments: {text}; declare it alike or delete it first")]
    Mismatch {
        /// What was declared.
        object: String,
        /// What the broker said; names both arguments.
        text: String,
    },
    /// The broker refused for another reason (missing exchange or queue, permission, bad name).
    #[error("the broker refused {object}: {text}")]
    Refused {
        /// What was asked for.
        object: String,
        /// What the broker said.
        text: String,
    },
}
