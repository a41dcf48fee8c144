use std::time::Duration;

use super::Entry;
use crate::row::micros;

/// A message the cursor passes without its being published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its place in the log.
    pub seq: i64,
    /// The key whose later messages wait behind it; `None` where nothing does.
    pub ordering_key: Option<String>,
    /// Why it is held.
    pub reason: HoldReason,
    /// What happens next.
    pub result: HoldResult,
}

/// Why a message is held. A closed list: counters and dashboards key on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldReason {
    /// Its time has not come.
    Delayed,
    /// An earlier message of its ordering key is held.
    Behind,
    /// It was behind one that is gone: its turn has come, and it has not been tried yet.
    Released,
    /// No queue is bound for it.
    Unroutable,
    /// A queue refused it.
    Nacked,
    /// Its exchange does not exist.
    ExchangeMissing,
    /// The relay's user may not write there.
    AccessRefused,
    /// The broker refused it for another reason.
    Refused,
    /// It can never be sent.
    Poison,
}

impl HoldReason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Delayed,
        Self::Behind,
        Self::Released,
        Self::Unroutable,
        Self::Nacked,
        Self::ExchangeMissing,
        Self::AccessRefused,
        Self::Refused,
        Self::Poison,
    ];

    /// As stored and as a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delayed => "delayed",
            Self::Behind => "behind",
            Self::Released => "released",
            Self::Unroutable => "unroutable",
            Self::Nacked => "nacked",
            Self::ExchangeMissing => "exchange_missing",
            Self::AccessRefused => "access_refused",
            Self::Refused => "refused",
            Self::Poison => "poison",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// What becomes of a held message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldResult {
    /// It waits until its own `deliver_after`; no attempt was made.
    UntilDue,
    /// It waits for the message in front of it; no attempt was made.
    UntilFirst,
    /// It is tried again after this long, by the database's clock.
    Again {
        /// Attempts made so far.
        attempts: u32,
        /// The wait.
        after: Duration,
        /// What went wrong, with its remedy.
        error: String,
    },
    /// It stays until an operator decides.
    Dead {
        /// Attempts made so far.
        attempts: u32,
        /// What went wrong, with its remedy.
        error: String,
    },
}

/// A held message whose time has come.
#[derive(Clone, Debug)]
pub struct Due {
    /// The row.
    pub entry: Entry,
    /// Attempts made so far.
    pub attempts: u32,
    /// Why it was held.
    pub reason: HoldReason,
    /// Whether another of its key is held in front of it: it must go behind that one.
    pub blocked: bool,
}

/// How another attempt at a held message ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Published: the hold goes.
    Published {
        /// Its place in the log.
        seq: i64,
    },
    /// Held on.
    Still(Hold),
}

/// A hold's result as it is stored.
pub(crate) struct Stored<'a> {
    pub(crate) state: &'static str,
    pub(crate) attempts: i32,
    /// The wait in microseconds; `None` until the message's own `deliver_after`.
    pub(crate) after: Option<i64>,
    pub(crate) error: &'a str,
}

impl HoldResult {
    pub(crate) fn stored(&self) -> Stored<'_> {
        let (state, attempts, after, error) = match self {
            Self::UntilDue => ("waiting", 0, None, ""),
            Self::UntilFirst => ("waiting", 0, Some(0), ""),
            Self::Again { attempts, after, error } => {
                ("waiting", *attempts, Some(micros(*after)), &error[..])
            }
            Self::Dead { attempts, error } => ("dead", *attempts, Some(0), &error[..]),
        };
        Stored { state, attempts: i32::try_from(attempts).unwrap_or(i32::MAX), after, error }
    }
}

impl Held {
    pub(crate) fn seq(&self) -> i64 {
        match self {
            Self::Published { seq } => *seq,
            Self::Still(hold) => hold.seq,
        }
    }

    /// The hold, where it stays one.
    pub(crate) const fn still(&self) -> Option<&Hold> {
        match self {
            Self::Published { .. } => None,
            Self::Still(hold) => Some(hold),
        }
    }

    /// Whether the row is replaced and not changed: only then do the triggers see to it that the first
    /// of a key does not wait behind nothing.
    pub(crate) fn is_moved(&self) -> bool {
        match self {
            Self::Published { .. } => true,
            Self::Still(hold) => {
                matches!(hold.reason, HoldReason::Behind)
                    || (hold.ordering_key.is_none()
                        && matches!(hold.result, HoldResult::Dead { .. }))
            }
        }
    }
}
