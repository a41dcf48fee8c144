use std::time::Duration;

use diesel::QueryResult;

use super::{
    Counted, Edge, Fenced, NewReplay, ReplayEnd, ReplayInfo, ReplayJob, ReplayPiece, ReplayPlan,
    Selection,
};
use crate::admin::{AdminError, AdminStore, Order};
use crate::reader::ReadLimit;

/// A database whose history can be replayed. Implemented for `PgConnection` and `SqliteConnection`.
pub trait ReplayStore: AdminStore {
    /// The first row the log still has.
    ///
    /// # Errors
    /// What the database said.
    fn first_kept(&mut self) -> QueryResult<Option<Edge>>;

    #[doc(hidden)]
    fn count_history(
        &mut self,
        selection: &Selection,
        from: i64,
        rows: u32,
    ) -> QueryResult<Counted>;

    /// The next messages of a replay, behind `from`. A step looks at a bounded piece of the log, so it
    /// can come back empty and not exhausted.
    ///
    /// # Errors
    /// What the database said.
    fn read_history(
        &mut self,
        job: &ReplayJob,
        from: i64,
        limit: ReadLimit,
    ) -> QueryResult<ReplayPiece>;

    /// Records a replay of what `plan` found, with its audit entry, and hands it to `owner`.
    ///
    /// # Errors
    /// [`AdminError`]: nothing fits, or the selection begins before what is kept and that was not
    /// allowed.
    fn start_replay(
        &mut self,
        new: &NewReplay,
        plan: &ReplayPlan,
        owner: &str,
        ttl: Duration,
        order: &Order,
    ) -> Result<ReplayJob, AdminError>;

    /// Takes up a replay that was interrupted or failed, with an audit entry.
    ///
    /// # Errors
    /// [`AdminError`]: there is none, it is over, or somebody works on it.
    fn resume_replay(
        &mut self,
        id: i64,
        owner: &str,
        ttl: Duration,
        order: &Order,
    ) -> Result<ReplayJob, AdminError>;

    /// Moves the position behind what is settled, with how many messages were sent and how many are
    /// unsendable by then in all, and renews the lease. Writing the same again does no harm.
    ///
    /// # Errors
    /// What the database said.
    fn advance_replay(
        &mut self,
        job: &ReplayJob,
        position: i64,
        sent: u64,
        unsendable: u64,
    ) -> QueryResult<Fenced>;

    /// Ends the work on a replay and gives it up.
    ///
    /// # Errors
    /// What the database said.
    fn end_replay(&mut self, job: &ReplayJob, end: &ReplayEnd) -> QueryResult<Fenced>;

    /// Gives a replay up for good, with an audit entry; whoever works on it stops behind the batch
    /// in flight. What was sent stays sent.
    ///
    /// # Errors
    /// [`AdminError`]: there is none, or it is over.
    fn cancel_replay(&mut self, id: i64, order: &Order) -> Result<(), AdminError>;

    /// The last replays, newest first.
    ///
    /// # Errors
    /// What the database said.
    fn replays(&mut self, limit: u32) -> QueryResult<Vec<ReplayInfo>>;

    /// One replay.
    ///
    /// # Errors
    /// [`AdminError::UnknownReplay`].
    fn replay(&mut self, id: i64) -> Result<ReplayInfo, AdminError>;
}
