//! Every statement on the inbox's tables. The two folders are twins: same files, same functions, same
//! order.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use message::Fingerprint;

mod admin;
pub(crate) mod batch;
#[cfg(feature = "postgres")]
pub(crate) mod claims;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[macro_use]
mod holding_up;
mod effect;
mod effects_seen;
mod generation;
pub(crate) mod missing;
mod operation;
mod parked;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "http")]
pub(crate) mod request;
pub(crate) mod retry;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
mod statement;
mod transition;

pub(crate) use effect::{First as FirstEffect, NewEffect};
#[cfg(feature = "diesel-async")]
pub(crate) use operation::FirstValues;
pub(crate) use operation::{First, Row};
pub use operation::{Operation, OperationVerdict};
pub use parked::{Parked, ParkedState};
pub(crate) use transition::{Move, NewTransition};
pub use transition::{Standing, Transition};

/// As an interval for the database. Beyond what a bigint can say nothing ever ends; a thousand years will
/// do.
pub(crate) fn micros(duration: Duration) -> i64 {
    const LONGEST: Duration = Duration::from_secs(365_000 * 24 * 60 * 60);
    i64::try_from(duration.min(LONGEST).as_micros()).unwrap_or(i64::MAX)
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
