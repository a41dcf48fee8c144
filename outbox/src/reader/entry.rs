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
    /// In the order in which they are to be published.
    pub entries: Vec<Entry>,
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

    /// Whether so many rows of these entries' size stayed below both limits.
    pub(crate) fn unmet_by(&self, entries: &[Entry]) -> bool {
        let bytes: u64 = entries
            .iter()
            .map(|entry| entry.message.payload.len() as u64 + Self::ROW_OVERHEAD)
            .sum();
        entries.len() < self.rows as usize && bytes < self.bytes
    }
}
