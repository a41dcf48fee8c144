use std::time::Duration;

use super::Position;

/// The right to move one cursor. Every write names the epoch, so a holder that was replaced while it
/// was frozen changes nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The cursor's name.
    pub cursor: String,
    /// Raised each time the lease changes hands.
    pub epoch: i64,
    /// How long each write keeps it, by the database's clock.
    pub ttl: Duration,
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
