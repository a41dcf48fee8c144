use std::time::Duration;

use diesel::QueryResult;

use super::{
    AdminError, AuditEntry, Backlog, Changed, CursorInfo, Facts, HoldCount, HoldInfo, NewCursor,
    Order, Purged, Rebased, Selection, Vitals,
};
use crate::reader::{Foreign, LogStore, WakeStore};

/// A database whose outbox can be operated. Implemented for `PgConnection` and `SqliteConnection`.
pub trait AdminStore: LogStore + WakeStore {
    /// Every cursor, by name.
    ///
    /// # Errors
    /// What the database said.
    fn cursors(&mut self) -> QueryResult<Vec<CursorInfo>>;

    /// Makes a cursor.
    ///
    /// # Errors
    /// [`AdminError`].
    fn add_cursor(&mut self, new: &NewCursor, order: &Order) -> Result<(), AdminError>;

    /// Removes a cursor with what it holds, and returns how many messages that was. Refused while a
    /// relay holds it, unless `force`.
    ///
    /// # Errors
    /// [`AdminError`].
    fn retire_cursor(
        &mut self,
        cursor: &str,
        force: bool,
        order: &Order,
    ) -> Result<u64, AdminError>;

    /// Pauses a cursor: its relay keeps the lease and hands nothing on. A paused one gets the new
    /// reason.
    ///
    /// # Errors
    /// [`AdminError`].
    fn pause(&mut self, cursor: &str, order: &Order) -> Result<(), AdminError>;

    /// Ends a pause; returns whether there was one.
    ///
    /// # Errors
    /// [`AdminError`].
    fn resume(&mut self, cursor: &str, order: &Order) -> Result<bool, AdminError>;

    /// Held messages, in order of `seq`.
    ///
    /// # Errors
    /// What the database said.
    fn holds(&mut self, cursor: &str, which: &Selection) -> QueryResult<Vec<HoldInfo>>;

    /// How many messages are held, by cursor, state and reason.
    ///
    /// # Errors
    /// What the database said.
    fn hold_counts(&mut self) -> QueryResult<Vec<HoldCount>>;

    /// Gives dead messages all their attempts again, from now on.
    ///
    /// # Errors
    /// [`AdminError`].
    fn retry_holds(
        &mut self,
        cursor: &str,
        which: &Selection,
        order: &Order,
    ) -> Result<Changed, AdminError>;

    /// Tries waiting messages now instead of at their time. Those behind another one stay there, and
    /// delayed ones are left to their time unless `which` names the reason `delayed` or their places.
    ///
    /// # Errors
    /// [`AdminError`].
    fn try_holds_now(
        &mut self,
        cursor: &str,
        which: &Selection,
        order: &Order,
    ) -> Result<Changed, AdminError>;

    /// Gives dead messages up: this cursor never publishes them, and what waits behind them goes on.
    /// Their rows stay in the log until the purge.
    ///
    /// # Errors
    /// [`AdminError`].
    fn discard_holds(
        &mut self,
        cursor: &str,
        which: &Selection,
        order: &Order,
    ) -> Result<Changed, AdminError>;

    /// Has producers tell a relay that sleeps of their commits ([`WakeStore`]), or no longer. Returns whether
    /// that was a change. Only the owner of the tables may. Producers wait for as long as transactions with
    /// messages are open, at most 2 s; then it is given up.
    ///
    /// # Errors
    /// [`AdminError`].
    fn set_wakeup(&mut self, on: bool, order: &Order) -> Result<bool, AdminError>;

    /// The last changes that operators made, newest first.
    ///
    /// # Errors
    /// What the database said.
    fn audit(&mut self, limit: u32) -> QueryResult<Vec<AuditEntry>>;

    /// Records a change that is made in several transactions, before it begins. `detail` is a JSON
    /// object.
    ///
    /// # Errors
    /// [`AdminError`].
    fn record(
        &mut self,
        order: &Order,
        action: &str,
        cursor: Option<&str>,
        detail: &str,
    ) -> Result<(), AdminError>;

    /// Deletes one batch of the log: of the next `rows` rows behind the place `from`, in order of
    /// `seq`, those that are older than `older_than` by the database's clock, that every cursor has
    /// handed on, and that no cursor holds. Stops at the first row that is too young or not handed
    /// on. Without any cursor it deletes nothing.
    ///
    /// # Errors
    /// What the database said.
    fn purge(&mut self, older_than: Duration, from: i64, rows: u32) -> QueryResult<Purged>;

    /// What [`purge`](Self::purge) would delete.
    ///
    /// # Errors
    /// What the database said.
    fn purgeable(&mut self, older_than: Duration, from: i64, rows: u32) -> QueryResult<Purged>;

    /// How far a cursor is behind, counted up to `bound`. `within` is the longest any statement of it
    /// may take on PostgreSQL.
    ///
    /// # Errors
    /// What the database said.
    fn backlog(&mut self, cursor: &str, bound: u32, within: Duration) -> QueryResult<Backlog>;

    /// Who holds back vacuum, and dead rows. `within` as for [`backlog`](Self::backlog).
    ///
    /// # Errors
    /// What the database said.
    fn vitals(&mut self, within: Duration) -> QueryResult<Vitals>;

    /// What a check of the installation wants to know.
    ///
    /// # Errors
    /// What the database said.
    fn facts(&mut self) -> QueryResult<Facts>;

    /// How it shows, if it does, that the numbers of a cursor or of the log are another cluster's.
    ///
    /// # Errors
    /// What the database said.
    fn foreign(&mut self, cursor: &str) -> QueryResult<Option<Foreign>>;

    /// Keeps every relay out until [`rebase`](Self::rebase) is through; to be called before it and
    /// before [`mark_piece`](Self::mark_piece). A relay that holds a cursor of this cluster is named instead,
    /// and nothing is changed.
    ///
    /// # Errors
    /// What the database said.
    fn fence(&mut self) -> QueryResult<Option<String>>;

    /// The first part of making a restored or copied database its own, in bounded pieces while
    /// producers go on: gives the next rows behind the place `from` that no cursor has still to hand on
    /// out of order a number that means nothing. Returns how many changed and where the next piece starts, if there
    /// is one. To be called until there is none, then [`rebase`](Self::rebase).
    ///
    /// # Errors
    /// What the database said.
    fn mark_piece(&mut self, from: i64) -> QueryResult<(u64, Option<i64>)>;

    /// Makes a restored or copied database its own: every message not handed on yet is handed on, and every
    /// relay claims anew. Producers wait while it works, which is short once
    /// [`mark_piece`](Self::mark_piece) has been through. Relays must be stopped: one that runs loses its
    /// lease.
    ///
    /// # Errors
    /// [`AdminError`].
    fn rebase(&mut self, order: &Order) -> Result<Rebased, AdminError>;

    /// The exchanges that the next `rows` pending messages of a cursor and its first `rows` held ones
    /// go to, by name.
    ///
    /// # Errors
    /// What the database said.
    fn exchanges(&mut self, cursor: &str, rows: u32) -> QueryResult<Vec<String>>;
}
