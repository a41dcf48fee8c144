use std::time::Duration;

/// How far a cursor is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages committed and not handed on, counted up to the bound that was given.
    pub messages: i64,
    /// Whether there are more than that.
    pub more: bool,
    /// Since when the first of them waits, by the database's clock; `None` when there is none.
    pub oldest: Option<Duration>,
}

/// What keeps the database from being at ease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Who holds back vacuum most; `None` when nobody does, and on SQLite.
    pub oldest_xmin: Option<XminHolder>,
    /// Dead rows of the outbox tables, as the server estimates; none on SQLite.
    pub dead_tuples: Vec<DeadTuples>,
}

/// A session, prepared transaction or replication slot that holds back vacuum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XminHolder {
    /// What it is and which: a process id, a prepared transaction's or a slot's name.
    pub who: String,
    /// Its database.
    pub database: String,
    /// How many transactions began since.
    pub transactions: i64,
    /// How long it has been open; `None` for a slot.
    pub open: Option<Duration>,
    /// How long its present or last statement has run or been over.
    pub since_query: Option<Duration>,
}

/// Dead rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadTuples {
    /// The table.
    pub table: String,
    /// Dead rows.
    pub dead: i64,
    /// Live rows.
    pub live: i64,
    /// Whether autovacuum is switched off for this table.
    pub autovacuum_off: bool,
}
