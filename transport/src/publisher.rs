use std::time::Duration;

use async_trait::async_trait;
use message::Message;

use crate::Unavailable;

/// Opens lanes to a broker and reconnects when asked for one after a failure.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// Opens a lane on the current connection, or on a new one if that is gone. Bounded in time.
    ///
    /// # Errors
    /// [`Unavailable`]; the caller waits and asks again.
    async fn open_lane(&self) -> Result<Box<dyn Lane>, Unavailable>;

    /// Opens a lane to one queue, past every exchange and binding: whatever exchange and routing key
    /// a message names, it goes to `queue` and nowhere else. For a replay to one consumer. The queue is
    /// an operator's word, never the data's: on any other lane an empty exchange is refused. Bounded in time.
    ///
    /// A queue that does not exist refuses each message as [`Refusal::Unroutable`]. RabbitMQ wants
    /// `write` on `amq.default`, which reaches every queue: grant it to operators and not to relays.
    ///
    /// # Errors
    /// [`Unavailable`]; the caller waits and asks again.
    async fn open_lane_to(&self, queue: &str) -> Result<Box<dyn Lane>, Unavailable>;

    /// Opens a lane for replies: each message goes to the queue its routing key names, past every exchange.
    /// Those names come from requests, so whoever publishes on it decides first which of them it answers.
    /// Otherwise as [`open_lane_to`](Self::open_lane_to).
    ///
    /// # Errors
    /// [`Unavailable`]; the caller waits and asks again.
    async fn open_reply_lane(&self) -> Result<Box<dyn Lane>, Unavailable>;

    /// What is known of the connection, without asking the broker.
    fn health(&self) -> Health;

    /// The negotiated (or requested) heartbeat interval, `None` where the transport has none. After
    /// two of them a frozen process has lost its connection; a lease must outlast that.
    fn heartbeat(&self) -> Option<Duration>;

    /// The longest a [`Lane::publish`] call waits without a sign of life from the broker before it
    /// returns [`Unavailable::Timeout`]. No bound on the whole call: a slow broker is waited for as long
    /// as something goes on, and one that blocks publishing for a limit of its own. Who must end
    /// earlier, as at the end of a lease, drops the call: nothing of it is sent from then on.
    fn publish_timeout(&self) -> Duration;

    /// The most messages a lane has in flight before it awaits their confirms; at least 1. A longer
    /// batch goes out in several windows, and nothing stops a lane between them: a caller with
    /// something to look at in between (a lease, a key that was refused) hands over no more than this.
    fn window(&self) -> usize;

    /// Closes the connection politely. Bounded in time; calling it twice is harmless.
    async fn close(&self);
}

/// One ordered path to the broker, owned by one task.
#[async_trait]
pub trait Lane: Send {
    /// Publishes the batch in order and waits until every message is settled: one verdict for each,
    /// in the order given.
    ///
    /// # Errors
    /// [`Unavailable`]: the outcome of the whole batch is unknown, the lane is of no more use.
    async fn publish(&mut self, batch: &[Message]) -> Result<Vec<Verdict>, Unavailable>;
}

/// How publishing one message ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every queue it was routed to has it.
    Confirmed,
    /// The broker would not take it now; it may later.
    Refused(Refusal),
    /// No broker set up like this one will ever take it.
    Poison(Poison),
}

/// Why the broker would not take a message now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No queue is bound for it (it was returned).
    #[error(
        "unroutable: exchange {exchange:?} has no queue bound for routing key {routing_key:?}; bind one"
    )]
    Unroutable {
        /// The exchange.
        exchange: String,
        /// The routing key.
        routing_key: String,
    },
    /// A queue refused it: full with `reject-publish`, or an internal error.
    #[error("refused by a queue (nack): it is full with overflow=reject-publish, or failed")]
    Nacked,
    /// The exchange does not exist.
    #[error("no exchange: {text}; declare it")]
    ExchangeMissing {
        /// What the broker said.
        text: String,
    },
    /// The user may not write there.
    #[error("no permission: {text}; grant write on the exchange")]
    AccessRefused {
        /// What the broker said.
        text: String,
    },
    /// The broker closed the channel over this message for another reason.
    #[error("the broker closed the channel: {text}")]
    Other {
        /// What the broker said.
        text: String,
    },
}

/// Why no broker set up like this one will ever take a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// The body is over the broker's `max_message_size`.
    #[error("too large for the broker: {text}")]
    TooLarge {
        /// What the broker said.
        text: String,
    },
    /// Headers and properties do not fit one frame.
    #[error("headers take {bytes} bytes and a frame holds {limit}")]
    HeadersTooLarge {
        /// Their encoded size.
        bytes: usize,
        /// The negotiated maximum.
        limit: usize,
    },
    /// The message breaks a rule of [`message::Message::check`] (a row written past the library).
    #[error(transparent)]
    Invalid(#[from] message::InvalidMessage),
}

/// What is known of the connection to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not connected (yet, or any more).
    Disconnected,
    /// Connected.
    Connected,
    /// Connected, but the broker takes nothing (memory or disk alarm).
    Blocked {
        /// What the broker said.
        reason: String,
    },
}
