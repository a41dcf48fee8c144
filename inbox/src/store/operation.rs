use std::time::SystemTime;

use message::{Fingerprint, OperationKey};

use crate::Consumer;

/// What a claim writes.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    pub(crate) consumer: Consumer<'a>,
    pub(crate) operation: &'a OperationKey,
    pub(crate) fingerprint: &'a Fingerprint,
    pub(crate) message_id: Option<&'a str>,
}

/// What a repeat finds out about the first time.
#[derive(Debug)]
pub struct First {
    pub(crate) same: bool,
    pub(crate) message_id: Option<String>,
    pub(crate) result: Option<String>,
    pub(crate) applied_at: SystemTime,
}

/// An operation that took effect, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operation {
    /// Its content.
    pub fingerprint: Fingerprint,
    /// The message that was applied, where one was named.
    pub message_id: Option<String>,
    /// The handler's result as JSON; `None` stands for null.
    pub result: Option<String>,
    /// When it was claimed, by the database's clock.
    pub applied_at: SystemTime,
    /// How often it came again.
    pub duplicates: i64,
    /// When it came again last.
    pub last_duplicate_at: Option<SystemTime>,
    /// How often its key came with other content.
    pub conflicts: i64,
    /// When that was last.
    pub last_conflict_at: Option<SystemTime>,
}
