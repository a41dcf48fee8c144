use std::time::UNIX_EPOCH;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use message::{InvalidMessage, Message, name};

use crate::Poison;
use crate::check::Way;

/// Survives a restart of the broker. Quorum queues persist anyway, but a dead-lettered copy in a
/// classic queue keeps the mode it was published with.
const PERSISTENT: u8 = 2;
/// Frame type, channel, length and end mark around any frame.
const FRAME_OVERHEAD: usize = 8;
/// Class, weight, body size and property flags at the start of a header frame.
const HEADER_FIXED: usize = 14;

const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// What goes with the payload.
pub(super) struct Envelope {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
}

/// Refuses what must not reach the wire: a header frame over the negotiated maximum closes the
/// connection of every lane, not just the channel. `frame_max` 0 means no limit.
pub(super) fn check(message: &Message, way: &Way, frame_max: u32) -> Result<(), Poison> {
    way.check(message)?;
    let (bytes, limit) = (header_frame_bytes(message), frame_max as usize);
    if limit > 0 && bytes > limit {
        return Err(Poison::HeadersTooLarge { bytes, limit });
    }
    Ok(())
}

/// Names must have passed [`check`]; one that has not is an error here too, never a panic.
pub(super) fn envelope(message: &Message) -> Result<Envelope, Poison> {
    let mut properties = BasicProperties::default()
        .with_message_id(short("message id", message.id.to_string())?)
        .with_type(short("kind", message.kind.as_str())?)
        .with_content_type(short("content type", message.content_type.as_str())?)
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(timestamp(message))
        .with_headers(table(message)?);
    if let Some(id) = correlation_id(message) {
        properties = properties.with_correlation_id(short("correlation id", id)?);
    }
    if let Some(queue) = reply_to(message) {
        properties = properties.with_reply_to(short("reply queue", queue)?);
    }
    Ok(Envelope {
        exchange: short("exchange", message.exchange.as_str())?,
        routing_key: short("routing key", message.routing_key.as_str())?,
        properties,
    })
}

/// Every header that travels, columns included. A column wins over a header of its name.
fn headers(message: &Message) -> impl Iterator<Item = (&str, &str)> {
    message
        .headers
        .iter()
        .filter(|(header, _)| *header != name::OPERATION && *header != name::ORDERING_KEY)
        .chain(std::iter::once((name::OPERATION, message.operation.as_str())))
        .chain(message.ordering_key.as_deref().map(|key| (name::ORDERING_KEY, key)))
}

fn table(message: &Message) -> Result<FieldTable, Poison> {
    let mut table = FieldTable::default();
    for (header, value) in headers(message) {
        table.insert(short("header name", header)?, AMQPValue::LongString(value.into()));
    }
    Ok(table)
}

/// The header travels in any case; the property only where it fits a short string.
fn correlation_id(message: &Message) -> Option<&str> {
    message.headers.get(name::CORRELATION_ID).filter(|id| id.len() <= message::MAX_NAME_BYTES)
}

/// The same. RabbitMQ's pseudo-queue means the channel that publishes, which closes over it where nobody
/// consumes from it: no sender of others' messages can use it.
fn reply_to(message: &Message) -> Option<&str> {
    let fits = |queue: &&str| queue.len() <= message::MAX_NAME_BYTES && *queue != DIRECT_REPLY_TO;
    message.headers.get(name::REPLY_TO).filter(fits)
}

fn timestamp(message: &Message) -> u64 {
    message.created_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn short(field: &'static str, text: impl Into<String>) -> Result<ShortString, Poison> {
    let text = text.into();
    let bytes = text.len();
    ShortString::try_new(text).map_err(|_| InvalidMessage::NameTooLong { field, bytes }.into())
}

/// Exact size of the header frame, without building it.
fn header_frame_bytes(message: &Message) -> usize {
    let short = |text: &str| 1 + text.len();
    let uuid = 1 + 36;
    let table: usize =
        headers(message).map(|(header, value)| short(header) + 1 + 4 + value.len()).sum();
    let mode_and_timestamp = 1 + 8;
    FRAME_OVERHEAD
        + HEADER_FIXED
        + uuid
        + short(&message.kind)
        + short(&message.content_type)
        + correlation_id(message).map_or(0, short)
        + reply_to(message).map_or(0, short)
        + mode_and_timestamp
        + 4
        + table
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use lapin::types::AMQPType;
    use message::{Headers, MessageId};
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Message {
        Message {
            id: MessageId::new(),
            kind: "k".into(),
            operation: "o".into(),
            ordering_key: None,
            exchange: "e".into(),
            routing_key: String::new(),
            headers: Headers::new(),
            content_type: Message::JSON.into(),
            payload: "{}".into(),
            created_at: UNIX_EPOCH + Duration::from_millis(1_999),
        }
    }

    /// The size by the codec itself.
    fn encoded_bytes(properties: &BasicProperties) -> usize {
        let write = lapin::protocol::basic::gen_properties::<Vec<u8>>(properties);
        let properties = write(Vec::new().into()).expect("encodes").into_inner().0;
        // Class, weight and body size come before the properties, whose flags are included.
        FRAME_OVERHEAD + 12 + properties.len()
    }

    #[test]
    fn every_property_is_set() {
        let mut message = sample();
        message.headers.insert(name::CORRELATION_ID, "c");
        message.ordering_key = Some("key".into());
        let sent = envelope(&message).expect("valid").properties;
        assert_eq!(
            sent.message_id().as_ref().map(ToString::to_string),
            Some(message.id.to_string())
        );
        assert_eq!(sent.kind().as_ref().map(ShortString::as_str), Some("k"));
        assert_eq!(sent.correlation_id().as_ref().map(ShortString::as_str), Some("c"));
        assert_eq!(*sent.delivery_mode(), Some(2));
        assert_eq!(*sent.timestamp(), Some(1));
        let headers = sent.headers().as_ref().expect("headers").inner();
        let names: Vec<_> = headers.keys().map(ShortString::as_str).collect();
        assert_eq!(names, [name::CORRELATION_ID, name::OPERATION, name::ORDERING_KEY]);
        assert!(headers.values().all(|value| value.get_type() == AMQPType::LongString));
    }

    #[test]
    fn a_column_wins_over_a_forged_header() {
        let mut message = sample();
        message.headers.insert(name::OPERATION, "forged");
        message.headers.insert(name::ORDERING_KEY, "forged");
        let sent: Vec<_> = headers(&message).collect();
        assert_eq!(sent, [(name::OPERATION, "o")]);
    }

    #[test]
    fn a_time_before_1970_is_no_panic() {
        let mut message = sample();
        message.created_at = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(timestamp(&message), 0);
    }

    #[test]
    fn a_correlation_id_that_does_not_fit_travels_as_header_only() {
        let mut message = sample();
        message.headers.insert(name::CORRELATION_ID, "c".repeat(256));
        let sent = envelope(&message).expect("valid").properties;
        assert_eq!(*sent.correlation_id(), None);
        assert!(sent.headers().as_ref().expect("headers").contains_key(name::CORRELATION_ID));
    }

    #[test]
    fn the_queue_for_replies_is_a_property_unless_it_is_the_pseudo_queue() {
        let mut message = sample();
        for (queue, property) in [("answers", Some("answers")), (DIRECT_REPLY_TO, None)] {
            message.headers.insert(name::REPLY_TO, queue);
            let sent = envelope(&message).expect("valid").properties;
            assert_eq!(sent.reply_to().as_ref().map(ShortString::as_str), property);
            assert!(sent.headers().as_ref().expect("headers").contains_key(name::REPLY_TO));
        }
    }

    #[test]
    fn headers_that_fill_the_frame_pass_and_one_byte_more_does_not() {
        let mut message = sample();
        message.headers.insert("h", "");
        let room = 4096 - header_frame_bytes(&message);
        message.headers.insert("h", "x".repeat(room));
        assert_eq!(check(&message, &Way::Exchange, 4096), Ok(()));
        message.headers.insert("h", "x".repeat(room + 1));
        assert_eq!(
            check(&message, &Way::Exchange, 4096),
            Err(Poison::HeadersTooLarge { bytes: 4097, limit: 4096 })
        );
        assert_eq!(check(&message, &Way::Exchange, 0), Ok(()));
    }

    proptest! {
        #[test]
        fn any_message_is_encoded_or_refused_and_its_size_is_exact(
            kind: String, operation: String, key: Option<String>, pairs: Vec<(String, String)>,
            correlation: Option<String>, reply: Option<String>
        ) {
            let mut message = sample();
            (message.kind, message.operation, message.ordering_key) = (kind, operation, key);
            message.headers = pairs.into_iter().collect();
            if let Some(id) = correlation {
                message.headers.insert(name::CORRELATION_ID, id);
            }
            if let Some(queue) = reply {
                message.headers.insert(name::REPLY_TO, queue);
            }
            if let Ok(envelope) = envelope(&message) {
                prop_assert_eq!(encoded_bytes(&envelope.properties), header_frame_bytes(&message));
            }
        }
    }
}
