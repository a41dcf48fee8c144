use std::fmt;

use message::OperationKey;

/// How a delivery ended. Each delivery ends in exactly one of these, each is counted, and all but the
/// last two are acknowledged, after the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Its handler ran and committed.
    Applied,
    /// The operation took effect before; the handler did not run.
    Duplicate,
    /// Kept in `inbox_parked` until somebody decides.
    Parked(Reason),
    /// The database could not be used, or another transaction held the operation, for longer than
    /// [`Settings::hold`](crate::Settings::hold). Given back to the queue; if a COMMIT was under way
    /// its row decides at the next delivery.
    Unsettled,
    /// The inbox was told to stop before there was an answer. Given back to the queue.
    Released,
}

/// Why a delivery was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The payload is not the JSON its kind stands for.
    Undecodable,
    /// No handler is registered for its kind, or it names none.
    UnknownKind,
    /// Its schema version is newer than the handler's, or not a number.
    UnknownVersion,
    /// It names no usable business operation.
    NoOperation,
    /// Its operation took effect before with other content.
    Conflict,
    /// The handler said that it can never be applied.
    Rejected,
    /// The handler failed as often as it may.
    Exhausted,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Undecodable,
        Self::UnknownKind,
        Self::UnknownVersion,
        Self::NoOperation,
        Self::Conflict,
        Self::Rejected,
        Self::Exhausted,
    ];

    /// As stored in `inbox_parked.reason` and used as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::UnknownKind => "unknown_kind",
            Self::UnknownVersion => "unknown_version",
            Self::NoOperation => "no_operation",
            Self::Conflict => "conflict",
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
        }
    }

    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Ending {
    /// Every ending.
    pub const ALL: [Self; 11] = [
        Self::Applied,
        Self::Duplicate,
        Self::Parked(Reason::Undecodable),
        Self::Parked(Reason::UnknownKind),
        Self::Parked(Reason::UnknownVersion),
        Self::Parked(Reason::NoOperation),
        Self::Parked(Reason::Conflict),
        Self::Parked(Reason::Rejected),
        Self::Parked(Reason::Exhausted),
        Self::Unsettled,
        Self::Released,
    ];

    /// As used as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Parked(reason) => reason.as_str(),
            Self::Unsettled => "unsettled",
            Self::Released => "released",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an observer is told once a delivery has ended and its answer went to the broker.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Ended<'a> {
    /// The `message_id` property.
    pub message_id: Option<&'a str>,
    /// The `type` property.
    pub kind: Option<&'a str>,
    /// The business operation; `None` where the delivery was parked before it was known.
    pub operation: Option<&'a OperationKey>,
    /// How it ended.
    pub ending: Ending,
    /// How often the handler was run, transactions repeated over contention not counted.
    pub attempts: u32,
    /// Whether the broker took the answer. If not the message comes again, as a duplicate where it
    /// was applied.
    pub answered: bool,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_ending_has_a_label_of_its_own_and_reasons_read_back() {
        let labels: HashSet<_> = Ending::ALL.iter().map(|ending| ending.as_str()).collect();
        assert_eq!(labels.len(), Ending::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::from_stored(reason.as_str()), Some(reason));
            assert!(Ending::ALL.contains(&Ending::Parked(reason)));
        }
        assert_eq!(Reason::from_stored("bored"), None);
    }
}
