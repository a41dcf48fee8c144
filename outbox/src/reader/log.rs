use std::time::Duration;

use db::Backend;
use diesel::QueryResult;

use super::{Advance, Chunk, Claim, Due, Filter, Held, Hold, Lease, Position, ReadLimit, Settled};

/// A database whose outbox can be read. Implemented for `PgConnection` and `SqliteConnection`; the
/// conformance suite defines what another one would have to do.
pub trait LogStore: Backend + migrations::Migrate {
    /// Takes the lease of a cursor if it is free, expired or the owner's own. Refuses a cursor or a
    /// log whose transaction numbers are another cluster's.
    ///
    /// # Errors
    /// What the database said.
    fn claim(&mut self, cursor: &str, owner: &str, ttl: Duration) -> QueryResult<Claim>;

    /// Keeps the lease for another term.
    ///
    /// # Errors
    /// What the database said.
    fn renew(&mut self, lease: &Lease) -> QueryResult<Advance>;

    /// Gives the lease up, so that a standby need not wait for its end.
    ///
    /// # Errors
    /// What the database said.
    fn release(&mut self, lease: &Lease) -> QueryResult<Advance>;

    /// Reads on from a position, and leaves out what the filter keeps back. Changes nothing.
    ///
    /// # Errors
    /// What the database said.
    fn read(&mut self, from: &Position, filter: &Filter, limit: ReadLimit) -> QueryResult<Chunk>;

    /// Moves the cursor and records what was held back, both or neither, and renews the lease.
    ///
    /// # Errors
    /// What the database said; when COMMIT failed the outcome is unknown and the cursor must be
    /// claimed anew.
    fn advance(&mut self, lease: &Lease, to: &Position, holds: &[Hold]) -> QueryResult<Advance>;

    /// Held messages whose time has come, oldest due first, each that heads its ordering key followed by
    /// those behind it.
    ///
    /// # Errors
    /// What the database said.
    fn due(&mut self, cursor: &str, limit: ReadLimit) -> QueryResult<Vec<Due>>;

    /// Records how another attempt at held messages ended, and renews the lease.
    ///
    /// # Errors
    /// What the database said.
    fn settle(&mut self, lease: &Lease, results: &[Held]) -> QueryResult<Settled>;

    /// The ordering keys that have a held message others must stay behind.
    ///
    /// # Errors
    /// What the database said.
    fn held_keys(&mut self, cursor: &str) -> QueryResult<Vec<String>>;

    /// How many messages are held, those that only wait for their time or behind another
    /// of their key not counted.
    ///
    /// # Errors
    /// What the database said.
    fn count_held(&mut self, cursor: &str) -> QueryResult<u64>;

    /// Why an operator paused the cursor; `None` while it is not paused.
    ///
    /// # Errors
    /// What the database said.
    fn paused(&mut self, cursor: &str) -> QueryResult<Option<String>>;

    /// How many messages are committed and not yet handed on.
    ///
    /// # Errors
    /// What the database said.
    fn pending(&mut self, cursor: &str) -> QueryResult<i64>;
}
