use message::{InvalidMessage, Message, check_name};

/// Where a lane's messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Where each message says.
    Exchange,
    /// To one queue, over the default exchange.
    Queue(String),
    /// Each to the queue its routing key names, over the default exchange.
    Queues,
}

impl Way {
    /// A batch as this way sends it; `None` where it goes as it is. The payloads are shared.
    pub(crate) fn addressed(&self, batch: &[Message]) -> Option<Vec<Message>> {
        if *self == Self::Exchange {
            return None;
        }
        let to_queue = |message: &Message| Message {
            // The default exchange.
            exchange: String::new(),
            routing_key: match self {
                Self::Queue(queue) => queue.clone(),
                Self::Exchange | Self::Queues => message.routing_key.clone(),
            },
            ..message.clone()
        };
        Some(batch.iter().map(to_queue).collect())
    }

    /// The rules of [`Message::check`] that a transport depends on. Sizes are left to the broker, whose
    /// limits are the ones that count, and headers are not written out as JSON for every publish.
    pub(crate) fn check(&self, message: &Message) -> Result<(), InvalidMessage> {
        check_name("kind", &message.kind)?;
        check_name("operation", &message.operation)?;
        if let Some(key) = &message.ordering_key {
            check_name("ordering key", key)?;
        }
        match self {
            // The default exchange reaches any queue by name, past every binding and permission.
            Self::Exchange => check_name("exchange", &message.exchange)?,
            // What the message says is not looked at.
            Self::Queue(_) => {}
            Self::Queues => check_name("reply queue", &message.routing_key)?,
        }
        if !message.routing_key.is_empty() {
            check_name("routing key", &message.routing_key)?;
        }
        check_name("content type", &message.content_type)?;
        message.headers.iter().try_for_each(|(header, _)| check_name("header name", header))
    }
}
