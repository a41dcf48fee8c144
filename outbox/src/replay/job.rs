use std::time::Duration;

use super::Selection;
use crate::admin::AdminError;
use crate::admin::order::name;
use crate::reader::Entry;

/// A replay to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReplay {
    /// The consumer it is for, 1 to 255 bytes.
    pub consumer: String,
    /// The consumer's own queue.
    pub queue: String,
    /// Lets the consumer's handlers with side effects run. It names the consumer in each message.
    pub forced: bool,
    /// What to send.
    pub selection: Selection,
    /// Messages a second, at least 1.
    pub rate: u32,
    /// Goes on although the selection begins before what is kept.
    pub allow_gap: bool,
}

impl NewReplay {
    pub(crate) fn check(&self) -> Result<(), AdminError> {
        name("consumer", &self.consumer)?;
        name("queue", &self.queue)?;
        if self.rate == 0 || self.rate > i32::MAX as u32 {
            return Err(AdminError::Unusable {
                field: "rate",
                value: self.rate.to_string(),
                reason: "it is messages a second; give at least 1".to_owned(),
            });
        }
        self.selection.check()
    }
}

/// A replay in the hands of who works on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayJob {
    /// Its number, which travels with each message.
    pub id: i64,
    /// The consumer.
    pub consumer: String,
    /// Its queue.
    pub queue: String,
    /// Whether it names the consumer in each message.
    pub forced: bool,
    /// Messages a second.
    pub rate: u32,
    /// What to send.
    pub selection: Selection,
    /// Everything selected up to here is settled.
    pub position: i64,
    /// The last place to send.
    pub last_seq: i64,
    /// Messages counted at the start.
    pub total: u64,
    /// Messages confirmed so far.
    pub sent: u64,
    /// Messages that no broker takes.
    pub unsendable: u64,
    /// How long the lease lasts without renewal, by the database's clock.
    pub ttl: Duration,
    /// Raised each time it changes hands; fences every write.
    pub(crate) epoch: i64,
    /// What was not due when it was started is no history. Microseconds since 1970.
    pub(crate) due: i64,
}

/// The next messages of a replay.
#[derive(Clone, Debug)]
pub struct ReplayPiece {
    /// In the order of the log; may be empty where little fits.
    pub entries: Vec<Entry>,
    /// The position once all of them are settled.
    pub next: i64,
    /// Whether there is no more.
    pub exhausted: bool,
}

/// What a write of a replay's holder brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a replay that is not ours any more must not go on"]
pub enum Fenced {
    /// Written, and the lease renewed.
    Done,
    /// An operator cancelled it; nothing was written.
    Cancelled,
    /// Somebody else has it; nothing was written.
    Lost,
}

/// How the work on a replay ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayEnd {
    /// Everything selected is settled.
    Done,
    /// It cannot go on; why, with its remedy. It can be resumed.
    Failed(String),
    /// Asked to stop. It can be resumed.
    Stopped,
}
