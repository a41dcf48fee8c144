/// How far a cursor has come. What it means is the store's own; see the [module](super).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub(crate) seq: i64,
    /// A `pg_snapshot` in text form; empty on SQLite.
    pub(crate) snapshot: String,
    pub(crate) late: Option<Late>,
}

/// How far the reading of a large late transaction has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    pub(crate) seq: i64,
    pub(crate) snapshot: String,
}

impl Position {
    /// The sequence number the cursor has come to, for people.
    #[must_use]
    pub const fn seq(&self) -> i64 {
        self.seq
    }
}
