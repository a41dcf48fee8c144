//! Every statement on the inbox's tables. The two files are twins: same functions, same order.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use message::{Fingerprint, Headers, OperationKey};

use crate::Consumer;
use crate::ending::Reason;

#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
mod statement;

/// What a claim writes.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    pub(crate) consumer: Consumer<'a>,
    pub(crate) operation: &'a OperationKey,
    pub(crate) fingerprint: &'a Fingerprint,
    pub(crate) message_id: Option<&'a str>,
}

/// What a repeat finds out about the first time.
#[derive(Debug)]
pub struct First {
    pub(crate) same: bool,
    pub(crate) message_id: Option<String>,
    pub(crate) result: Option<String>,
    pub(crate) applied_at: SystemTime,
}

/// An operation that took effect, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operation {
    /// Its content.
    pub fingerprint: Fingerprint,
    /// The message that was applied, where one was named.
    pub message_id: Option<String>,
    /// The handler's result as JSON; `None` stands for null.
    pub result: Option<String>,
    /// When it was claimed, by the database's clock.
    pub applied_at: SystemTime,
    /// How often it came again.
    pub duplicates: i64,
    /// When it came again last.
    pub last_duplicate_at: Option<SystemTime>,
    /// How often its key came with other content.
    pub conflicts: i64,
    /// When that was last.
    pub last_conflict_at: Option<SystemTime>,
}

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
}

/// Microseconds since 1970 as a time.
fn time(micros: i64) -> SystemTime {
    let magnitude = Duration::from_micros(micros.unsigned_abs());
    if micros >= 0 { UNIX_EPOCH + magnitude } else { UNIX_EPOCH - magnitude }
}

fn fingerprint(bytes: Vec<u8>) -> diesel::QueryResult<Fingerprint> {
    <[u8; 32]>::try_from(bytes)
        .map(Fingerprint::from)
        .map_err(|bytes| unreadable(format!("a fingerprint of {} bytes", bytes.len())))
}

fn unreadable(what: String) -> diesel::result::Error {
    diesel::result::Error::DeserializationError(format!("the inbox holds {what}").into())
}

type About = (i64, String, String, i32, i64);
type Names = (Option<String>, Option<String>, Option<String>, Option<String>);
type Content = (String, String, String, Option<String>, Vec<u8>);

fn parked_row(
    (id, reason, detail, attempts, deliveries): About,
    (message_id, kind, scope, operation): Names,
    (exchange, routing_key, headers, content_type, payload): Content,
    (parked_at, last_parked_at): (i64, i64),
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
    })
}
