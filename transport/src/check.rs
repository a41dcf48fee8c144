use message::{InvalidMessage, Message, check_name};

/// The rules of [`Message::check`] that a transport depends on. Sizes are left to the broker, whose
/// limits are the ones that count, and headers are not written out as JSON for every publish.
pub(crate) fn names(message: &Message) -> Result<(), InvalidMessage> {
    check_name("kind", &message.kind)?;
    check_name("operation", &message.operation)?;
    if let Some(key) = &message.ordering_key {
        check_name("ordering key", key)?;
    }
    // The default exchange reaches any queue by name, past every binding and permission.
    check_name("exchange", &message.exchange)?;
    if !message.routing_key.is_empty() {
        check_name("routing key", &message.routing_key)?;
    }
    check_name("content type", &message.content_type)?;
    message.headers.iter().try_for_each(|(header, _)| check_name("header name", header))
}
