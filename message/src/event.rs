use std::borrow::Cow;

use serde::Serialize;

/// A type whose values are business facts worth sending.
///
/// `KIND` and the operation are stored for ever, in outboxes, inboxes and brokers: to change the
/// shape of an event raise `VERSION`, never rename `KIND`.
pub trait Event: Serialize {
    /// The name of this kind of event, for example `payment.succeeded`: 1 to 255 bytes, no control
    /// characters. Travels as the AMQP `type` property.
    const KIND: &'static str;

    /// The schema version written with each message. Default 1. A consumer whose type has version
    /// `n` accepts messages of version 1 to `n` and parks newer ones.
    const VERSION: u32 = 1;

    /// The exchange to publish to. Default `events`. Can be overridden per message.
    const EXCHANGE: &'static str = "events";

    /// The business identity, for example the payment id. Two events with the same scope and
    /// operation are the same fact, whatever their message ids.
    fn operation(&self) -> Cow<'_, str>;

    /// The scope the operation is unique in. Default: `KIND`.
    fn scope(&self) -> Cow<'_, str> {
        Cow::Borrowed(Self::KIND)
    }

    /// Messages with the same ordering key are published in the order in which their transactions
    /// took effect. Default `None`: no order wanted, none paid for.
    fn ordering_key(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// The AMQP routing key. Default: `KIND`.
    fn routing_key(&self) -> Cow<'_, str> {
        Cow::Borrowed(Self::KIND)
    }

    /// Top-level fields that may differ between honest retries of one operation (a timestamp, an
    /// attempt number) and are therefore left out of the fingerprint. Default: none.
    fn fingerprint_excludes() -> &'static [&'static str] {
        &[]
    }
}
