use std::time::Duration;

use super::{Filter, Position};

/// The right to move one cursor. Every write names the epoch, so a holder that was replaced while it
/// was frozen changes nothing any more; and the timeline of the database, so a holder whose
/// connections lead to a promoted standby claims anew before it writes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The cursor's name.
    pub cursor: String,
    /// Raised each time the lease changes hands.
    pub epoch: i64,
    /// How long each write keeps it, by the database's clock.
    pub ttl: Duration,
    /// What the cursor hands on.
    pub filter: Filter,
    /// The timeline of the database; 0 on SQLite.
    pub timeline: i64,
    /// The timeline of the claim before, where that was another: a standby was promoted.
    pub promoted_from: Option<i64>,
}

/// What asking for a lease brought.
#[derive(Clone, Debug)]
pub enum Claim {
    /// It is ours; reading goes on from here.
    Taken(Lease, Position),
    /// Somebody else holds it.
    Busy {
        /// Who.
        owner: String,
        /// For how long yet, unless it is renewed.
        remaining: Duration,
    },
    /// There is no cursor of this name.
    Unknown,
    /// The numbers of the cursor or of the log are another cluster's and mean nothing here.
    Foreign(Foreign),
}

/// How it shows that transaction numbers are another cluster's: the database was restored from a
/// dump, or copied logically.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// The cursor was last moved in a cluster with another system identifier.
    #[error("the cursor was moved in the database cluster {stored}, and this is {found}")]
    OtherCluster {
        /// The system identifier stored with the cursor.
        stored: String,
        /// The one found.
        found: String,
    },
    /// The cursor's snapshot names transactions this cluster has not begun yet.
    #[error("the cursor's snapshot {snapshot} is ahead of this cluster's transactions")]
    SnapshotAhead {
        /// The snapshot.
        snapshot: String,
    },
    /// The log has rows of transactions this cluster has not begun yet.
    #[error("the outbox has rows of transactions that this cluster has not begun yet")]
    RowsAhead,
}

/// What a write under a lease brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a lost lease must stop the holder"]
pub enum Advance {
    /// Written, and the lease renewed.
    Done,
    /// Somebody else has the lease; nothing was written.
    LeaseLost,
}

impl Advance {
    /// What a write fenced by the epoch brought, by the number of rows it changed.
    pub(crate) const fn of(rows: usize) -> Self {
        if rows == 0 { Self::LeaseLost } else { Self::Done }
    }
}

/// What recording attempts at held messages brought.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a lost lease must stop the holder"]
pub enum Settled {
    /// Written, and the lease renewed.
    Done {
        /// Of the keys concerned, those with no held message any more that others must stay behind.
        freed: Vec<String>,
    },
    /// Somebody else has the lease; nothing was written.
    LeaseLost,
}
