use std::fmt;

use message::OperationKey;

use crate::DuplicateKind;

/// How a delivery, or the retry of a parked message, ended. Each ends in exactly one of these, each is
/// counted, and a delivery is acknowledged in all but the last two, after the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// Its handler ran and committed.
    Applied,
    /// Its handler ran, found the event out of date ([`Context::mark_stale`](crate::Context::mark_stale))
    /// and committed.
    Stale,
    /// The operation took effect before; the handler did not run.
    Duplicate,
    /// Kept in `inbox_parked`: to be tried again, or until somebody decides.
    Parked(Reason),
    /// The retry of a parked message that somebody else has answered meanwhile: another process, or an
    /// operator. Rolled back.
    Overtaken,
    /// The database could not be used, or another transaction held the operation, for longer than
    /// [`Settings::hold`](crate::Settings::hold). Given back to the queue, in order with all that came after
    /// it; if a COMMIT was under way its row decides at the next delivery. A parked message does not wait for
    /// so long: it is put off at once.
    Unsettled,
    /// The inbox was told to stop before there was an answer. Given back to the queue.
    Released,
}

/// Why a delivery was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// The handler failed; tried again when due.
    Failed,
    /// The handler gave no answer within [`Settings::handler_deadline`](crate::Settings::handler_deadline);
    /// tried again when due.
    Hung,
    /// It came before its time; tried again until
    /// [`Settings::early_for`](crate::Settings::early_for) has passed.
    Early,
    /// The handler asked for a decision.
    Review,
    /// It waits behind an earlier parked message of its ordering key.
    Behind,
    /// It was begun again and again without ever coming to an end: it seems to kill its process.
    Crashed,
    /// A replay of a handler with side effects that was not forced for this consumer.
    ReplayRefused,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::Undecodable,
        Self::UnknownKind,
        Self::UnknownVersion,
        Self::NoOperation,
        Self::Conflict,
        Self::Rejected,
        Self::Exhausted,
        Self::Failed,
        Self::Hung,
        Self::Early,
        Self::Review,
        Self::Behind,
        Self::Crashed,
        Self::ReplayRefused,
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
            Self::Failed => "failed",
            Self::Hung => "hung",
            Self::Early => "early",
            Self::Review => "review",
            Self::Behind => "behind",
            Self::Crashed => "crashed",
            Self::ReplayRefused => "replay_refused",
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
    pub const ALL: [Self; 20] = [
        Self::Applied,
        Self::Stale,
        Self::Duplicate,
        Self::Parked(Reason::Undecodable),
        Self::Parked(Reason::UnknownKind),
        Self::Parked(Reason::UnknownVersion),
        Self::Parked(Reason::NoOperation),
        Self::Parked(Reason::Conflict),
        Self::Parked(Reason::Rejected),
        Self::Parked(Reason::Exhausted),
        Self::Parked(Reason::Failed),
        Self::Parked(Reason::Hung),
        Self::Parked(Reason::Early),
        Self::Parked(Reason::Review),
        Self::Parked(Reason::Behind),
        Self::Parked(Reason::Crashed),
        Self::Parked(Reason::ReplayRefused),
        Self::Overtaken,
        Self::Unsettled,
        Self::Released,
    ];

    /// As used as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Stale => "stale",
            Self::Duplicate => "duplicate",
            Self::Parked(reason) => reason.as_str(),
            Self::Overtaken => "overtaken",
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

/// An ending and what belongs to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) ending: Ending,
    /// Runs of the handler until then.
    pub(crate) attempts: u32,
    pub(crate) duplicate: Option<DuplicateKind>,
    /// It was parked, and moves on by itself: this is not the end of it.
    pub(crate) again: bool,
}

impl End {
    pub(crate) const fn of(ending: Ending, attempts: u32) -> Self {
        let again = matches!(
            ending,
            Ending::Parked(Reason::Failed | Reason::Hung | Reason::Early | Reason::Behind)
        );
        Self { ending, attempts, duplicate: None, again }
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
    /// How the operation came again, for [`Ending::Duplicate`].
    pub duplicate: Option<DuplicateKind>,
    /// How often the handler was run for this message until now, also before it was parked;
    /// transactions repeated over contention are not counted, nor are runs that came too early.
    pub attempts: u32,
    /// Whether this was the retry of a parked message, of which the broker knows nothing any more.
    pub retried: bool,
    /// Whether the broker took the answer. If not the message comes again, as a duplicate where it
    /// was applied. True for a retry.
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
