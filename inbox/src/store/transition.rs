use std::time::SystemTime;

use super::time;
use crate::transition::Cause;

/// A move of an entity, as far as it was `version` moves old and in state `from`.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    pub(crate) machine: &'a str,
    pub(crate) entity: &'a str,
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) version: i64,
}

/// A line of history to be written.
#[derive(Debug)]
pub struct NewTransition<'a> {
    pub(crate) machine: &'a str,
    pub(crate) entity: &'a str,
    /// Moves of the entity so far.
    pub(crate) version: Option<i64>,
    pub(crate) event: &'a str,
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) verdict: &'a str,
    pub(crate) cause: &'a Cause<'a>,
}

impl NewTransition<'_> {
    /// No move has this number; it is stored as null.
    pub(super) fn version_or_none(&self) -> i64 {
        self.version.unwrap_or(-1)
    }
}

/// Where an entity stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The name of its state.
    pub state: String,
    /// How often it has moved.
    pub version: i64,
    /// When it moved last, by the database's clock.
    pub changed_at: SystemTime,
}

/// A decision about an event, as committed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// Its number; later decisions about an entity's moves have greater ones.
    pub id: i64,
    /// Moves of the entity, this one included; `None` where its state is kept in a table of yours.
    pub version: Option<i64>,
    /// The event's name.
    pub event: String,
    /// The state the event met.
    pub from: String,
    /// The state the entity was in afterwards.
    pub to: String,
    /// `to`, `duplicate` or `stale`; see [`Verdict::as_str`](crate::transition::Verdict::as_str).
    pub verdict: String,
    /// The consumer that received the event, where one was named.
    pub consumer: Option<String>,
    /// Scope and id of the operation that brought it, where one was named.
    pub operation: Option<(String, String)>,
    /// The message that brought it, where one was named.
    pub message_id: Option<String>,
    /// When, by the database's clock.
    pub at: SystemTime,
}

type What = (i64, Option<i64>, String, String, String, String);
type Why = (Option<String>, Option<String>, Option<String>, Option<String>);

pub(super) fn standing_row((state, version, changed_at): (String, i64, i64)) -> Standing {
    Standing { state, version, changed_at: time(changed_at) }
}

pub(super) fn transition_row(
    ((id, version, event, from, to, verdict), (consumer, scope, operation, message_id), at): (
        What,
        Why,
        i64,
    ),
) -> Transition {
    let operation = scope.zip(operation);
    let at = time(at);
    Transition { id, version, event, from, to, verdict, consumer, operation, message_id, at }
}
