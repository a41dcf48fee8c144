use std::time::SystemTime;

use bytes::Bytes;
use message::Headers;

use super::{time, unreadable};
use crate::ending::Reason;

/// A delivery that was acknowledged without being applied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parked {
    /// Its number in the parking lot.
    pub id: i64,
    /// Why.
    pub reason: Reason,
    /// Why, in full.
    pub detail: String,
    /// How often its handler was run before it was parked the last time.
    pub attempts: i32,
    /// How often it was parked.
    pub deliveries: i64,
    /// The `message_id` property.
    pub message_id: Option<String>,
    /// The `type` property.
    pub kind: Option<String>,
    /// Scope and id of the operation, where they were known.
    pub operation: Option<(String, String)>,
    /// The exchange it was published to.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// Its headers. NUL characters became `␀`.
    pub headers: Headers,
    /// The `content_type` property.
    pub content_type: Option<String>,
    /// The body, byte for byte.
    pub payload: Bytes,
    /// When it was parked first, by the database's clock.
    pub parked_at: SystemTime,
    /// When it was parked last.
    pub last_parked_at: SystemTime,
    /// Who moves it on.
    pub state: ParkedState,
    /// When the inbox tries it again; while it does so, when it is taken for dead.
    pub not_before: Option<SystemTime>,
    /// Its ordering key.
    pub ordering_key: Option<String>,
}

/// Who moves a parked message on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParkedState {
    /// The inbox, when it is due.
    Retry,
    /// The end of what is parked before it under its ordering key.
    Behind,
    /// A person.
    Review,
}

impl ParkedState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Retry, Self::Behind, Self::Review];

    /// As stored in `inbox_parked.state`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Behind => "behind",
            Self::Review => "review",
        }
    }

    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

pub(super) fn state(text: &str) -> diesel::QueryResult<ParkedState> {
    ParkedState::from_stored(text).ok_or_else(|| unreadable(format!("the state {text:?}")))
}

type About = (i64, String, String, i32, i64);
type Names = (Option<String>, Option<String>, Option<String>, Option<String>);
type Content = (String, String, String, Option<String>, Vec<u8>);

pub(super) fn parked_row(
    (id, reason, detail, attempts, deliveries): About,
    (message_id, kind, scope, operation): Names,
    (exchange, routing_key, headers, content_type, payload): Content,
    (parked_at, last_parked_at, not_before): (i64, i64, Option<i64>),
    (state, ordering_key): (String, Option<String>),
) -> diesel::QueryResult<Parked> {
    Ok(Parked {
        id,
        reason: Reason::from_stored(&reason)
            .ok_or_else(|| unreadable(format!("the reason {reason:?}")))?,
        detail,
        attempts,
        deliveries,
        message_id,
        kind,
        operation: scope.zip(operation),
        exchange,
        routing_key,
        headers: Headers::from_json(&headers)
            .map_err(|error| unreadable(format!("broken headers: {error}")))?,
        content_type,
        payload: payload.into(),
        parked_at: time(parked_at),
        last_parked_at: time(last_parked_at),
        state: self::state(&state)?,
        not_before: not_before.map(time),
        ordering_key,
    })
}
