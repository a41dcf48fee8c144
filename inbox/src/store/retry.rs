use std::time::Duration;

use diesel::QueryResult;
use message::Headers;

use super::unreadable;
use crate::ending::Reason;
use crate::incoming::Incoming;

/// A parked message that is being tried again.
#[derive(Debug)]
pub struct Due {
    pub(crate) lease: Lease,
    pub(crate) incoming: Incoming,
    pub(crate) ordering_key: Option<String>,
}

/// The right to answer a parked message, until somebody else takes it.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    pub(crate) id: i64,
    pub(crate) epoch: i64,
    /// Since the last one that ended with an answer, this one included.
    pub(crate) starts: u32,
    /// Runs of its handler until now.
    pub(crate) attempts: u32,
    /// Since it was parked first.
    pub(crate) age: Duration,
    pub(crate) reason: Reason,
}

/// What is known of a redelivered message that is about to be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// So many times now, without ever coming to an end.
    Begun {
        /// This one included.
        starts: u32,
    },
    /// It is parked: the commit was made and the acknowledgement lost.
    Parked {
        /// Its number.
        id: i64,
        /// Why.
        reason: Reason,
    },
}

impl Start {
    pub(super) fn parked(id: i64, reason: &str) -> QueryResult<Self> {
        Ok(Self::Parked { id, reason: known(reason)? })
    }
}

fn known(reason: &str) -> QueryResult<Reason> {
    Reason::from_stored(reason).ok_or_else(|| unreadable(format!("the reason {reason:?}")))
}

type About = (i64, i64, i32, i32, i64, String);
type Names = (Option<String>, Option<String>, Option<String>);
type Content = (String, String, String, Option<String>, Vec<u8>);

pub(super) fn due(
    (id, epoch, starts, attempts, age, reason): About,
    (message_id, kind, ordering_key): Names,
    (exchange, routing_key, headers, content_type, payload): Content,
) -> QueryResult<Due> {
    let headers = Headers::from_json(&headers)
        .map_err(|error| unreadable(format!("broken headers: {error}")))?;
    Ok(Due {
        lease: Lease {
            id,
            epoch,
            starts: starts.unsigned_abs(),
            attempts: attempts.unsigned_abs(),
            age: Duration::from_micros(age.max(0).unsigned_abs()),
            reason: known(&reason)?,
        },
        incoming: Incoming {
            named_operation: headers.operation_key(kind.as_deref()),
            message_id,
            kind,
            exchange,
            routing_key,
            headers,
            content_type,
            payload: payload.into(),
            // Not kept: how long it has been parked is known better.
            timestamp: None,
            redelivered: false,
        },
        ordering_key,
    })
}
