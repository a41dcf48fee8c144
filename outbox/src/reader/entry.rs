use message::Message;

use super::Position;

/// One row of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place in the log. Means nothing outside this database.
    pub seq: i64,
    /// The message.
    pub message: Message,
    /// Whether it is not due yet by the database's clock.
    pub delayed: bool,
    /// What keeps the row from being a message at all (written past the library and its
    /// constraints). Such a row can only be held.
    pub defect: Option<String>,
}

/// What one step read.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// In the order in which they are to be published. Without those the filter keeps back.
    pub entries: Vec<Entry>,
    /// How many rows the filter kept back.
    pub passed_over: usize,
    /// Where the cursor stands once all of them are settled.
    pub next: Position,
    /// Whether there was no more to read.
    pub exhausted: bool,
}

/// How much one step reads at most. One row is read whatever its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Rows.
    pub rows: u32,
    /// Bytes of payload, with 512 for the rest of each row.
    pub bytes: u64,
}

impl ReadLimit {
    /// What a row costs beside its payload.
    pub(crate) const ROW_OVERHEAD: u64 = 512;

    /// Whether so many rows, of so many bytes in all, stayed below both limits.
    pub(crate) const fn unmet_by(&self, rows: usize, bytes: u64) -> bool {
        rows < self.rows as usize && bytes < self.bytes
    }
}
