use std::time::SystemTime;

use super::Identity;

/// What a check of the whole installation wants to know of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The server or library with its version.
    pub server: String,
    /// The database's clock.
    pub now: SystemTime,
    /// Which cluster this is; `None` on SQLite, and where the role may not ask.
    pub identity: Option<Identity>,
    /// The next transaction number, as far as it was given out; `None` on SQLite.
    pub next_xid: Option<i64>,
    /// The highest transaction number any cursor's position names; `None` on SQLite.
    pub highest_cursor_xid: Option<i64>,
    /// Whether the log has rows of transactions that this cluster has not begun.
    pub rows_ahead: bool,
    /// Whether this is a standby, which takes no writes.
    pub standby: bool,
    /// Whether the server runs autovacuum at all; true on SQLite.
    pub autovacuum: bool,
    /// The version of the collation that the database's indexes on text were made with, and the one it has now;
    /// `none` for one that never changes, as on SQLite. `None` where the server does not know: before PostgreSQL 15,
    /// and where it was upgraded from that.
    pub collation: Option<(String, String)>,
    /// Whether the connection is encrypted; `None` where that is no question (SQLite, Unix socket).
    pub encrypted: Option<bool>,
    /// Whether producers tell a relay that sleeps of their commits; `None` on SQLite, where they cannot.
    pub wakeup: Option<bool>,
    /// Whether the server lets transactions be prepared (`PREPARE TRANSACTION`); false on SQLite.
    pub prepares: bool,
    /// The role the relay works as; empty on SQLite.
    pub role: String,
    /// What the role may do of what the relay does; none on SQLite.
    pub rights: Vec<Right>,
}

/// One right of the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// What for.
    pub needed_by: TableUse,
    /// The table, with its columns where only some are needed, or the function.
    pub object: String,
    /// The privilege.
    pub privilege: String,
    /// Whether the role has it.
    pub granted: bool,
}

/// What a right is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableUse {
    /// Publishing: nothing works without.
    Relay,
    /// The purge.
    Purge,
    /// An operator's commands.
    Operator,
}
