use std::time::Duration;

use db::CallError;
use diesel::result::Error;
use transport::{Refusal, Unavailable};

/// Why a replay cannot go on. It is recorded as failed, unless the database cannot be written, and can
/// be resumed from where it stands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// There is no such queue.
    #[error(
        "there is no queue {queue:?}; declare it, or cancel this replay and start one to the right queue"
    )]
    QueueMissing {
        /// The queue.
        queue: String,
    },
    /// The broker refuses what is sent there.
    #[error(
        "the broker refused a message to queue {queue:?}: {refusal}; a replay needs `write` on the default exchange (amq.default)"
    )]
    Refused {
        /// The queue.
        queue: String,
        /// What it said.
        #[source]
        refusal: Refusal,
    },
    /// The queue took nothing for too long.
    #[error(
        "queue {queue:?} refused messages for {after:?}: it is full with overflow=reject-publish, or failed; let its consumer catch up"
    )]
    QueueFull {
        /// The queue.
        queue: String,
        /// For how long.
        after: Duration,
    },
    /// The broker cannot be used, or could not for too long.
    #[error(transparent)]
    Broker(Unavailable),
    /// The database cannot be used, or could not for too long.
    #[error("the database failed: {0}")]
    Database(CallError<Error>),
}
