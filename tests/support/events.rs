//! The event most tests send.

use std::borrow::Cow;

use message::Event;
use serde::{Deserialize, Serialize};

/// The `number`th fact about `key`, or about nothing in particular.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The ordering key.
    pub key: Option<String>,
    /// Counts up within the key, or over all keyless facts.
    pub number: i64,
    /// Anything, to make it as large as wanted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub filler: String,
}

impl Fact {
    /// A fact with an ordering key.
    #[must_use]
    pub fn of(key: &str, number: i64) -> Self {
        Self { key: Some(key.to_owned()), number, filler: String::new() }
    }

    /// A fact without one.
    #[must_use]
    pub fn keyless(number: i64) -> Self {
        Self { key: None, number, filler: String::new() }
    }

    /// Reads it back from a payload.
    #[must_use]
    pub fn from_payload(payload: &[u8]) -> Self {
        serde_json::from_slice(payload).expect("a fact")
    }
}

impl Event for Fact {
    const KIND: &'static str = "test.fact";

    fn operation(&self) -> Cow<'_, str> {
        format!("{}-{}", self.key.as_deref().unwrap_or("keyless"), self.number).into()
    }

    fn ordering_key(&self) -> Option<Cow<'_, str>> {
        self.key.as_deref().map(Into::into)
    }
}
