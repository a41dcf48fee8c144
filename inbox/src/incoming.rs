use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use message::{Fingerprint, Headers, MessageId, OperationKey, name};
use transport::{Acknowledge, Delivery};

use crate::Consumer;
use crate::effect::{Effects, Shared};
use crate::replay::Replayed;
use crate::stale::Stale;

/// A received message, without the means to answer it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// The `message_id` property. Foreign producers may send none, or anything.
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
    /// When its producer says that it was made: the `timestamp` property, in whole seconds. By the
    /// producer's clock; foreign producers may send none, or anything.
    pub timestamp: Option<SystemTime>,
    /// The broker's hint that it was delivered before. Only a hint.
    pub redelivered: bool,
    /// The business operation its headers name.
    pub(crate) named_operation: Option<OperationKey>,
}

impl Incoming {
    pub(crate) fn split(delivery: Delivery) -> (Self, Box<dyn Acknowledge>) {
        let named_operation = delivery.operation_key();
        let Delivery {
            message_id,
            kind,
            exchange,
            routing_key,
            headers,
            content_type,
            payload,
            timestamp,
            redelivered,
            acker,
        } = delivery;
        let incoming = Self {
            message_id,
            kind,
            exchange,
            routing_key,
            headers,
            content_type,
            payload,
            timestamp,
            redelivered,
            named_operation,
        };
        (incoming, acker)
    }
}

/// What a handler is told about the delivery it works on.
#[derive(Debug)]
pub struct Context<'a> {
    pub(crate) consumer: Consumer<'a>,
    pub(crate) incoming: &'a Incoming,
    pub(crate) operation: &'a OperationKey,
    pub(crate) fingerprint: &'a Fingerprint,
    pub(crate) attempt: u32,
    pub(crate) stale: &'a Stale,
    pub(crate) generation: u32,
    pub(crate) effects: &'a Arc<Shared>,
}

impl Context<'_> {
    /// The consumer that received it.
    #[must_use]
    pub const fn consumer(&self) -> Consumer<'_> {
        self.consumer
    }

    /// The `message_id` property.
    #[must_use]
    pub fn message_id(&self) -> Option<&str> {
        self.incoming.message_id.as_deref()
    }

    /// The message id where it is a UUID, as this library's own are.
    #[must_use]
    pub fn uuid(&self) -> Option<MessageId> {
        self.message_id()?.parse().ok()
    }

    /// The business operation that is being applied.
    #[must_use]
    pub const fn operation(&self) -> &OperationKey {
        self.operation
    }

    /// The fingerprint of its content.
    #[must_use]
    pub const fn fingerprint(&self) -> &Fingerprint {
        self.fingerprint
    }

    /// The headers.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.incoming.headers
    }

    /// The whole message.
    #[must_use]
    pub const fn incoming(&self) -> &Incoming {
        self.incoming
    }

    /// The broker's hint that it was delivered before. Only a hint: deciding is the inbox's work.
    #[must_use]
    pub const fn redelivered(&self) -> bool {
        self.incoming.redelivered
    }

    /// The number of the replay that sent the message again; `None` where it comes for the first time.
    #[must_use]
    pub fn replay(&self) -> Option<&str> {
        Replayed::of(self.incoming).map(Replayed::id)
    }

    /// The generation that the inbox works for ([`Builder::generation`](crate::Builder::generation)); 1 where
    /// nothing is rebuilt. A projection that can be rebuilt writes to tables of its generation.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Says that the event is out of date: what it tells has been overtaken, and the handler has left
    /// things as they are. What the handler wrote commits with the claim; the delivery ends as
    /// [`Ending::Stale`](crate::Ending::Stale) instead of applied, and the operation is kept as such.
    pub fn mark_stale(&self) {
        self.stale.set(true);
    }

    /// The effects of this operation in the outside world. For [`Handler::prepare`](crate::Handler::prepare), where
    /// they can be awaited: a retry then gets the stored results instead of calling again. What is asked for is told
    /// from other requests by the message's fingerprint, unless [`Effect::request`](crate::effect::Effect::request)
    /// says it more closely.
    #[must_use]
    pub fn effects(&self) -> Effects {
        Effects {
            shared: self.effects.clone(),
            operation: self.operation.clone(),
            fingerprint: *self.fingerprint,
            elsewhere: false,
        }
    }

    /// Which run of the handler for this delivery this is, from 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Correlation and causation id for messages that the handler enqueues: the conversation this
    /// message belongs to (or begins), and this message. `None` where it has no id. Meant for
    /// `Draft::caused_by` of the outbox.
    #[must_use]
    pub fn cause(&self) -> Option<(&str, &str)> {
        let id = self.message_id()?;
        Some((self.headers().get(name::CORRELATION_ID).unwrap_or(id), id))
    }
}
