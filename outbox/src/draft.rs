use std::time::{Duration, SystemTime};

use diesel::connection::LoadConnection;
use message::{Event, InvalidMessage, Limits, Message, MessageId, TraceContext};

use crate::backend::OutboxBackend;
use crate::enqueue::enqueue_all;
use crate::error::EnqueueError;
use crate::row::{DeliverAfter, NewRow};

/// An event with options, not yet enqueued.
///
/// What is wrong with it is said by [`enqueue`](Draft::enqueue), so the calls chain.
///
/// ```
/// # use std::{borrow::Cow, time::Duration};
/// # use diesel::prelude::*;
/// # #[derive(serde::Serialize)] struct Reminder { order: &'static str }
/// # impl message::Event for Reminder {
/// #     const KIND: &'static str = "payment.reminder";
/// #     fn operation(&self) -> Cow<'_, str> { self.order.into() }
/// # }
/// # let mut conn = SqliteConnection::establish(":memory:")?;
/// # migrations::run(&mut conn)?;
/// conn.transaction(|tx| {
///     outbox::Draft::of(&Reminder { order: "order_456" })
///         .exchange("mail")
///         .routing_key("reminders.first")
///         .header("tenant", "t1")
///         .deliver_after(Duration::from_secs(3600))
///         .enqueue(tx)
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a draft does nothing until it is enqueued"]
pub struct Draft {
    message: Result<Message, InvalidMessage>,
    limits: Limits,
    deliver_after: Option<DeliverAfter>,
    serialized: bool,
}

impl Draft {
    /// A draft of an event, with the routing its type gives.
    pub fn of<E: Event + ?Sized>(event: &E) -> Self {
        Self::from_result(Message::from_event(event))
    }

    /// A draft of a message built by hand, for payloads that are not events of this program.
    pub fn of_message(message: Message) -> Self {
        Self::from_result(Ok(message))
    }

    fn from_result(message: Result<Message, InvalidMessage>) -> Self {
        Self { message, limits: Limits::default(), deliver_after: None, serialized: false }
    }

    fn edit(mut self, change: impl FnOnce(&mut Message) -> Result<(), InvalidMessage>) -> Self {
        if let Ok(message) = &mut self.message
            && let Err(error) = change(message)
        {
            self.message = Err(error);
        }
        self
    }

    /// The message id, instead of a new one. A retry after an unknown COMMIT uses the id of the
    /// first attempt: then at most one of the two is stored.
    pub fn id(self, id: MessageId) -> Self {
        self.edit(|message| {
            message.id = id;
            Ok(())
        })
    }

    /// The exchange, instead of `Event::EXCHANGE`.
    pub fn exchange(self, exchange: impl Into<String>) -> Self {
        self.edit(|message| {
            message.exchange = exchange.into();
            Ok(())
        })
    }

    /// The routing key, instead of `Event::routing_key`.
    pub fn routing_key(self, routing_key: impl Into<String>) -> Self {
        self.edit(|message| {
            message.routing_key = routing_key.into();
            Ok(())
        })
    }

    /// The ordering key, instead of `Event::ordering_key`.
    pub fn ordering_key(self, key: impl Into<String>) -> Self {
        self.edit(|message| {
            message.ordering_key = Some(key.into());
            Ok(())
        })
    }

    /// Adds a header. Names beginning with `counterfoil-` are reserved.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.edit(|message| message.set_header(name, value))
    }

    /// Names the service that sends the message.
    pub fn source(self, service: &str) -> Self {
        self.edit(|message| {
            message.set_source(service);
            Ok(())
        })
    }

    /// Names the conversation and the message that caused this one.
    pub fn caused_by(self, correlation_id: &str, causation_id: &str) -> Self {
        self.edit(|message| {
            message.set_cause(correlation_id, causation_id);
            Ok(())
        })
    }

    /// Names the queue that waits for the answer. It is answered by an inbox with
    /// `Builder::replies`; the conversation ([`caused_by`](Self::caused_by), or else the message id) tells
    /// its answer from others.
    pub fn reply_to(self, queue: &str) -> Self {
        self.edit(|message| {
            message.set_reply_to(queue);
            Ok(())
        })
    }

    /// Stores the trace the message belongs to; the consumer continues it.
    pub fn trace(self, trace: &TraceContext) -> Self {
        self.edit(|message| {
            message.set_trace(trace);
            Ok(())
        })
    }

    /// Publishes it no earlier than this long after it was stored, by the database's clock. Default:
    /// at once. It is not ordered against undelayed messages of its key.
    pub fn deliver_after(mut self, delay: Duration) -> Self {
        self.deliver_after = Some(DeliverAfter::Delay(delay));
        self
    }

    /// Publishes it no earlier than at this time, compared with the database's clock.
    pub fn deliver_at(mut self, at: SystemTime) -> Self {
        self.deliver_after = Some(DeliverAfter::At(at));
        self
    }

    /// Keeps order per ordering key also where the transactions of one key lock no row in common:
    /// takes an advisory lock on the key until the transaction ends, so those transactions run one
    /// after another. Not needed where the business change updates the aggregate's row, and on
    /// SQLite, where there is one writer anyway.
    pub fn serialized(mut self) -> Self {
        self.serialized = true;
        self
    }

    /// Other limits than the default.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Enqueues it in the open transaction.
    ///
    /// # Errors
    /// [`EnqueueError`]; roll the business transaction back.
    pub fn enqueue<C>(self, tx: &mut C) -> Result<MessageId, EnqueueError>
    where
        C: LoadConnection,
        C::Backend: OutboxBackend,
    {
        let id = self.message.as_ref().map(|message| message.id).unwrap_or_default();
        enqueue_all(tx, [self]).map(|_| id)
    }

    /// The row, and the ordering key to serialize on.
    pub(crate) fn finish(self) -> Result<(NewRow, Option<String>), EnqueueError> {
        let message = self.message?;
        message.check(&self.limits)?;
        let key = match (self.serialized, &message.ordering_key) {
            (false, _) => None,
            (true, Some(key)) => Some(key.clone()),
            (true, None) => return Err(EnqueueError::NothingToSerialize),
        };
        Ok((NewRow { message, deliver_after: self.deliver_after }, key))
    }
}
