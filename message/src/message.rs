use std::time::SystemTime;

use bytes::Bytes;

use crate::event::Event;
use crate::fingerprint::Fingerprint;
use crate::headers::{Headers, name};
use crate::id::MessageId;
use crate::limits::{InvalidMessage, Limits, check_headers, check_name};
use crate::operation::OperationKey;
use crate::trace::TraceContext;

/// One event record on its way from an outbox to a broker.
///
/// The fields are public because stores and transports build and read them; [`Message::check`]
/// holds the rules, and every path into an outbox calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The same on every attempt to publish.
    pub id: MessageId,
    /// What kind of event it is; the AMQP `type`.
    pub kind: String,
    /// The operation id within its scope.
    pub operation: String,
    /// Order is kept among messages with the same key; `None` asks for none.
    pub ordering_key: Option<String>,
    /// The exchange to publish to.
    pub exchange: String,
    /// The routing key to publish with. May be empty.
    pub routing_key: String,
    /// Headers, with fingerprint, version, source, cause and trace context among them.
    pub headers: Headers,
    /// Media type of the payload. `application/json` for events.
    pub content_type: String,
    /// The body.
    pub payload: Bytes,
    /// When the row was enqueued, by the database's clock; the producer's until it is stored.
    pub created_at: SystemTime,
}

impl Message {
    /// The media type of events.
    pub const JSON: &'static str = "application/json";

    /// A message for an event: JSON payload, fingerprint, version, default routing.
    ///
    /// # Errors
    /// [`InvalidMessage::Unserializable`]. Limits are checked when it is enqueued.
    pub fn from_event<E: Event + ?Sized>(event: &E) -> Result<Self, InvalidMessage> {
        let unserializable =
            |error: serde_json::Error| InvalidMessage::Unserializable { reason: error.to_string() };
        let payload = serde_json::to_vec(event).map_err(unserializable)?;
        let fingerprint = Fingerprint::of_payload(&payload, E::fingerprint_excludes());
        let mut headers = Headers::new();
        headers.insert(name::FINGERPRINT, fingerprint.to_string());
        headers.insert(name::SCHEMA_VERSION, E::VERSION.to_string());
        if event.scope() != E::KIND {
            headers.insert(name::SCOPE, event.scope());
        }
        Ok(Self {
            id: MessageId::new(),
            kind: E::KIND.to_owned(),
            operation: event.operation().into_owned(),
            ordering_key: event.ordering_key().map(std::borrow::Cow::into_owned),
            exchange: E::EXCHANGE.to_owned(),
            routing_key: event.routing_key().into_owned(),
            headers,
            content_type: Self::JSON.to_owned(),
            payload: payload.into(),
            created_at: SystemTime::now(),
        })
    }

    /// The business operation this message stands for.
    ///
    /// Scope and operation of a stored message passed [`Message::check`]; for one that did not, the
    /// key is built as it stands and refused wherever it is used.
    #[must_use]
    pub fn operation_key(&self) -> OperationKey {
        OperationKey::unchecked(self.scope(), &self.operation)
    }

    /// The operation's scope: the scope header, or the kind.
    #[must_use]
    pub fn scope(&self) -> &str {
        self.headers.get(name::SCOPE).unwrap_or(&self.kind)
    }

    /// Adds a header of the caller's own.
    ///
    /// # Errors
    /// [`InvalidMessage`] for a reserved name, a bad name or a NUL in the value.
    pub fn set_header(&mut self, header: &str, value: &str) -> Result<(), InvalidMessage> {
        if header.starts_with(name::RESERVED_PREFIX) {
            return Err(InvalidMessage::ReservedHeader { name: header.to_owned() });
        }
        check_name("header name", header)?;
        if value.contains('\0') {
            return Err(InvalidMessage::NulInHeader { name: header.to_owned() });
        }
        self.headers.insert(header, value);
        Ok(())
    }

    /// Names the service that sends the message.
    pub fn set_source(&mut self, source: &str) {
        self.headers.insert(name::SOURCE, source);
    }

    /// Names the queue that waits for the answer.
    pub fn set_reply_to(&mut self, queue: &str) {
        self.headers.insert(name::REPLY_TO, queue);
    }

    /// Names the conversation and the message that caused this one.
    pub fn set_cause(&mut self, correlation_id: &str, causation_id: &str) {
        self.headers.insert(name::CORRELATION_ID, correlation_id);
        self.headers.insert(name::CAUSATION_ID, causation_id);
    }

    /// Stores the trace the message belongs to.
    pub fn set_trace(&mut self, trace: &TraceContext) {
        self.headers.insert(name::TRACEPARENT, trace.traceparent());
        if let Some(state) = trace.tracestate() {
            self.headers.insert(name::TRACESTATE, state);
        }
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// The first [`InvalidMessage`] found.
    pub fn check(&self, limits: &Limits) -> Result<(), InvalidMessage> {
        check_name("kind", &self.kind)?;
        check_name("operation scope", self.scope())?;
        check_name("operation", &self.operation)?;
        if let Some(key) = &self.ordering_key {
            check_name("ordering key", key)?;
        }
        // The default exchange reaches any queue by name, past every binding and permission.
        check_name("exchange", &self.exchange)?;
        if !self.routing_key.is_empty() {
            check_name("routing key", &self.routing_key)?;
        }
        check_name("content type", &self.content_type)?;
        check_headers(&self.headers)?;
        if self.payload.len() > limits.max_payload_bytes {
            return Err(InvalidMessage::PayloadTooLarge {
                bytes: self.payload.len(),
                limit: limits.max_payload_bytes,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde::Serialize;

    use super::*;

    #[derive(Serialize)]
    struct Paid<'a> {
        payment: &'a str,
        cents: i64,
        at: i64,
    }

    impl Event for Paid<'_> {
        const KIND: &'static str = "payment.succeeded";
        fn operation(&self) -> Cow<'_, str> {
            self.payment.into()
        }
        fn fingerprint_excludes() -> &'static [&'static str] {
            &["at"]
        }
    }

    fn paid(payment: &str, cents: i64, at: i64) -> Message {
        Message::from_event(&Paid { payment, cents, at }).expect("valid")
    }

    #[test]
    fn one_fact_told_twice_has_two_ids_and_one_operation() {
        let (first, second) = (paid("pay_1", 50, 1), paid("pay_1", 50, 2));
        assert_ne!(first.id, second.id);
        assert_eq!(first.operation_key(), second.operation_key());
        assert_eq!(first.headers.fingerprint(), second.headers.fingerprint());
        assert_ne!(first.headers.fingerprint(), paid("pay_1", 51, 1).headers.fingerprint());
    }

    #[test]
    fn every_limit_is_checked() {
        let limits = Limits::default();
        type Break = fn(&mut Message);
        let breaks: [(Break, &str); 9] = [
            (|m| m.kind.clear(), "kind"),
            (|m| m.operation = "o".repeat(256), "operation"),
            (|m| m.ordering_key = Some(String::new()), "ordering key"),
            (|m| m.exchange.clear(), "exchange"),
            (|m| m.routing_key = "r\0".into(), "routing key"),
            (|m| m.content_type.clear(), "content type"),
            (|m| drop(m.headers.insert("h", "v".repeat(65 * 1024))), "headers"),
            (|m| drop(m.headers.insert("h", "\0")), "header"),
            (|m| m.payload = vec![0; 8 * 1024 * 1024 + 1].into(), "payload"),
        ];
        for (spoil, named) in breaks {
            let mut message = paid("pay_1", 50, 1);
            assert_eq!(message.check(&limits), Ok(()));
            spoil(&mut message);
            let error = message.check(&limits).expect_err(named).to_string();
            assert!(error.starts_with(named), "{named}: {error}");
        }
    }

    #[test]
    fn a_caller_cannot_forge_reserved_headers() {
        let mut message = paid("pay_1", 50, 1);
        assert!(message.set_header("counterfoil-fingerprint", "0").is_err());
        assert_eq!(message.set_header("tenant", "t1"), Ok(()));
        assert_eq!(message.headers.get("tenant"), Some("t1"));
    }
}
