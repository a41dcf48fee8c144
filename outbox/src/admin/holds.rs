use std::time::{Duration, SystemTime};

/// Which held messages are meant. What is `None` does not restrict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// These places in the log.
    pub seqs: Option<Vec<i64>>,
    /// `waiting` or `dead`.
    pub state: Option<String>,
    /// A [`HoldReason`](crate::reader::HoldReason) as stored.
    pub reason: Option<String>,
    /// One ordering key.
    pub key: Option<String>,
    /// At most so many, in order of `seq`.
    pub limit: u32,
}

impl Default for Selection {
    fn default() -> Self {
        Self { seqs: None, state: None, reason: None, key: None, limit: 1_000 }
    }
}

/// A held message, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldInfo {
    /// Its place in the log.
    pub seq: i64,
    /// `waiting` or `dead`.
    pub state: String,
    /// Why it is held.
    pub reason: String,
    /// Attempts made so far.
    pub attempts: i64,
    /// When it is tried next, by the database's clock. Without meaning for a dead one.
    pub not_before: SystemTime,
    /// How long it has been held.
    pub held_for: Duration,
    /// What went wrong last, with its remedy.
    pub last_error: String,
    /// Its ordering key.
    pub ordering_key: Option<String>,
    /// The message; `None` when its row was deleted from the log.
    pub message: Option<HeldMessage>,
}

/// What a held message is, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldMessage {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// Its operation.
    pub operation: String,
    /// Its exchange.
    pub exchange: String,
    /// Its routing key.
    pub routing_key: String,
    /// When it was enqueued.
    pub created_at: SystemTime,
}

/// How many messages are held alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldCount {
    /// The cursor.
    pub cursor: String,
    /// `waiting` or `dead`.
    pub state: String,
    /// Why they are held.
    pub reason: String,
    /// How many.
    pub count: i64,
}

/// What an order over held messages changed, or would change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Messages changed.
    pub changed: u64,
    /// Messages that fit the selection and were left alone because they can never be sent as they
    /// were meant: rows that are no message, or gone from the log. Discard them.
    pub refused: u64,
}
