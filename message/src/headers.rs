use std::collections::BTreeMap;

use serde_json::Value;

use crate::OperationKey;
use crate::fingerprint::Fingerprint;

/// Names of the headers this library gives a meaning, the same in the outbox row and on the wire.
pub mod name {
    /// Prefix kept for this library.
    pub const RESERVED_PREFIX: &str = "counterfoil-";
    /// The operation id. On the wire only; in the outbox it is a column.
    pub const OPERATION: &str = "counterfoil-operation";
    /// The operation's scope where it is not the kind.
    pub const SCOPE: &str = "counterfoil-scope";
    /// [`Fingerprint`](crate::Fingerprint) in hexadecimal.
    pub const FINGERPRINT: &str = "counterfoil-fingerprint";
    /// The ordering key. On the wire only; in the outbox it is a column.
    pub const ORDERING_KEY: &str = "counterfoil-ordering-key";
    /// [`Event::VERSION`](crate::Event::VERSION) in decimal; absent means 1.
    pub const SCHEMA_VERSION: &str = "counterfoil-schema-version";
    /// The service that sent the message.
    pub const SOURCE: &str = "counterfoil-source";
    /// The message that caused this one.
    pub const CAUSATION_ID: &str = "counterfoil-causation-id";
    /// The conversation this message belongs to. Also the AMQP `correlation_id`.
    pub const CORRELATION_ID: &str = "counterfoil-correlation-id";
    /// The queue that waits for the answer to this message. Also the AMQP `reply_to`.
    pub const REPLY_TO: &str = "counterfoil-reply-to";
    /// Of a reply: how the message it answers ended.
    pub const OUTCOME: &str = "counterfoil-outcome";
    /// The number of the replay that sent it again. Absent on what comes for the first time.
    pub const REPLAY: &str = "counterfoil-replay";
    /// The consumer whose handlers with side effects a replay may run.
    pub const REPLAY_FORCED: &str = "counterfoil-replay-forced";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C trace state.
    pub const TRACESTATE: &str = "tracestate";
}

/// Text headers, sorted by name.
///
/// Values are text only, so that every store and transport keeps them alike. A foreign producer's
/// number, boolean or nested value is kept as its JSON text; a null is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<String, String>);

impl Headers {
    /// No headers.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The value of a header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets a header and returns what it was.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) -> Option<String> {
        self.0.insert(name.into(), value.into())
    }

    /// Headers in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The business operation named by kind, scope and operation headers; `None` where there is none or
    /// it is invalid.
    #[must_use]
    pub fn operation_key(&self, kind: Option<&str>) -> Option<OperationKey> {
        let scope = self.get(name::SCOPE).or(kind)?;
        OperationKey::new(scope, self.get(name::OPERATION)?).ok()
    }

    /// The fingerprint, where a valid one travels with the message.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.get(name::FINGERPRINT)?.parse().ok()
    }

    /// The schema version; 1 where none is named, `None` where it is not a number.
    #[must_use]
    pub fn schema_version(&self) -> Option<u32> {
        self.get(name::SCHEMA_VERSION).map_or(Some(1), |text| text.parse().ok())
    }

    /// As a JSON object, the form stored in the outbox.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::with_capacity(2 + 64 * self.0.len());
        json.push('{');
        for (i, (name, value)) in self.0.iter().enumerate() {
            if i > 0 {
                json.push(',');
            }
            push_json_text(&mut json, name);
            json.push(':');
            push_json_text(&mut json, value);
        }
        json.push('}');
        json
    }

    /// Reads a JSON object of any values; see [`Headers`] for what becomes of values that are not
    /// text.
    ///
    /// # Errors
    /// When the text is not a JSON object.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        // The common case is text only; parsing straight into text avoids a tree per row.
        if let Ok(map) = serde_json::from_str(json) {
            return Ok(Self(map));
        }
        let map: BTreeMap<String, Value> = serde_json::from_str(json)?;
        Ok(map
            .into_iter()
            .filter_map(|(name, value)| match value {
                Value::Null => None,
                Value::String(text) => Some((name, text)),
                other => Some((name, other.to_string())),
            })
            .collect())
    }
}

fn push_json_text(out: &mut String, text: &str) {
    // `Value` needs an owned string; writing through serde keeps one escaping rule.
    match serde_json::to_string(text) {
        Ok(json) => out.push_str(&json),
        Err(_) => out.push_str("\"\""),
    }
}

impl FromIterator<(String, String)> for Headers {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn foreign_values_become_text_and_nulls_go() {
        let headers = Headers::from_json(r#"{"n":1,"t":"x","b":true,"o":{"a":[1]},"z":null}"#)
            .expect("object");
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(all, [("b", "true"), ("n", "1"), ("o", r#"{"a":[1]}"#), ("t", "x")]);
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        for bad in ["", "[]", "1", "\"x\"", "{"] {
            assert!(Headers::from_json(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_version_is_one_and_a_broken_one_is_none() {
        let mut headers = Headers::new();
        assert_eq!(headers.schema_version(), Some(1));
        headers.insert(name::SCHEMA_VERSION, "two");
        assert_eq!(headers.schema_version(), None);
    }

    proptest! {
        #[test]
        fn json_round_trips(pairs: BTreeMap<String, String>) {
            let headers: Headers = pairs.into_iter().collect();
            prop_assert_eq!(Headers::from_json(&headers.to_json()).ok(), Some(headers));
        }
    }
}
