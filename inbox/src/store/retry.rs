use std::time::Duration;

use diesel::QueryResult;
use message::{Headers, OperationKey};

use super::{time, unreadable};
use crate::ending::Reason;
use crate::incoming::Incoming;

/// A parked message that is being tried again.
#[derive(Debug)]
pub struct Due {
    pub(crate) lease: Lease,
    pub(crate) incoming: Incoming,
    pub(crate) ordering_key: Option<String>,
    /// As it was named the first time: a key function sees less of a parked message.
    pub(crate) operation: Option<OperationKey>,
}

/// The right to answer a parked message, until somebody else takes it.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    pub(crate) id: i64,
    pub(crate) epoch: i64,
    /// Since the last one that ended with an answer, when it was taken.
    pub(crate) starts: u32,
    /// Runs of its handler until now.
    pub(crate) attempts: u32,
    /// For how long it has been coming before its time.
    pub(crate) early_for: Duration,
    /// Whether its handler may run in spite of a replay's mark.
    pub(crate) forced: bool,
}

/// What is known of a redelivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// So many times, without ever coming to an end.
    Begun {
        /// This one not included.
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

pub(super) fn known(reason: &str) -> QueryResult<Reason> {
    Reason::from_stored(reason).ok_or_else(|| unreadable(format!("the reason {reason:?}")))
}

type About = (i64, i64, i32, i32, i64, bool);
type Names = (Option<String>, Option<String>, Option<String>, Option<String>, Option<String>);
type Content = (String, String, String, Option<String>, Vec<u8>, Option<i64>);

pub(super) fn due(
    (id, epoch, starts, attempts, early_for, forced): About,
    (message_id, kind, ordering_key, scope, operation): Names,
    (exchange, routing_key, headers, content_type, payload, made_at): Content,
) -> QueryResult<Due> {
    let headers = Headers::from_json(&headers)
        .map_err(|error| unreadable(format!("broken headers: {error}")))?;
    let operation = scope.zip(operation).and_then(|(scope, id)| OperationKey::new(scope, id).ok());
    Ok(Due {
        lease: Lease {
            id,
            epoch,
            starts: starts.unsigned_abs(),
            attempts: attempts.unsigned_abs(),
            early_for: Duration::from_micros(early_for.max(0).unsigned_abs()),
            forced,
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
            timestamp: made_at.map(time),
            redelivered: false,
        },
        ordering_key,
        operation,
    })
}
