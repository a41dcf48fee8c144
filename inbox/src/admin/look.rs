use std::time::SystemTime;

use bytes::Bytes;
use diesel::QueryResult;
use diesel::connection::LoadConnection;
use message::Headers;

use super::{AdminBackend, AuditEntry, Selection};
use crate::backend::InboxBackend;
use crate::{ParkedState, Reason};

/// A parked message, without headers and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedInfo {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub consumer: String,
    /// Who moves it on.
    pub state: ParkedState,
    /// Why it is parked.
    pub reason: Reason,
    /// Why, in full.
    pub detail: String,
    /// How often its handler was run before it was parked the last time.
    pub attempts: i32,
    /// How often it was begun since then, without having come to an end.
    pub starts: i32,
    /// How often it was parked.
    pub deliveries: i64,
    /// The `message_id` property.
    pub message_id: Option<String>,
    /// The `type` property.
    pub kind: Option<String>,
    /// Scope and id of the operation, where they were known.
    pub operation: Option<(String, String)>,
    /// Its ordering key.
    pub ordering_key: Option<String>,
    /// The exchange it was published to.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// The size of its body, in bytes.
    pub bytes: i64,
    /// When it was parked first, by the database's clock.
    pub parked_at: SystemTime,
    /// When it was parked last.
    pub last_parked_at: SystemTime,
    /// When the inbox tries it again; while it does so, when it is taken for dead.
    pub not_before: Option<SystemTime>,
    /// Whether it is being tried at this moment.
    pub under_way: bool,
}

/// A parked message, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedMessage {
    /// All but its content.
    pub info: ParkedInfo,
    /// Its headers. NUL characters became `␀`.
    pub headers: Headers,
    /// The `content_type` property.
    pub content_type: Option<String>,
    /// The body, byte for byte.
    pub payload: Bytes,
}

/// How many messages are parked alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedCount {
    /// The consumer.
    pub consumer: String,
    /// Who moves them on.
    pub state: ParkedState,
    /// Why they are parked.
    pub reason: Reason,
    /// How many.
    pub count: i64,
    /// When the first of them was parked first, by the database's clock.
    pub oldest: SystemTime,
}

/// Parked messages, in order of their numbers.
///
/// # Errors
/// When the database refuses.
pub fn list<C>(conn: &mut C, which: &Selection) -> QueryResult<Vec<ParkedInfo>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::list(conn, which)
}

/// One parked message, whole; `None` where no message of this number is parked.
///
/// # Errors
/// When the database refuses.
pub fn show<C>(conn: &mut C, id: i64) -> QueryResult<Option<ParkedMessage>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    let Some(info) = C::Backend::list(conn, &Selection::one(id))?.pop() else { return Ok(None) };
    // Parked rows keep their content for as long as they are there.
    let content = C::Backend::content(conn, id)?;
    Ok(content.map(|(headers, content_type, payload)| ParkedMessage {
        info,
        headers,
        content_type,
        payload,
    }))
}

/// How many messages are parked, by consumer, state and reason; of one consumer where it is named.
///
/// # Errors
/// When the database refuses.
pub fn counts<C>(conn: &mut C, consumer: Option<&str>) -> QueryResult<Vec<ParkedCount>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::counts(conn, consumer)
}

/// The last changes that operators made, newest first.
///
/// # Errors
/// When the database refuses.
pub fn audit<C>(conn: &mut C, limit: u32) -> QueryResult<Vec<AuditEntry>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::audit(conn, i64::from(limit))
}
