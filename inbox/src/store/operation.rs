use std::time::SystemTime;

use diesel::QueryResult;
use message::{Fingerprint, OperationKey};

use super::{fingerprint, time, unreadable};
use crate::{Consumer, DuplicateKind};

/// What a claim writes, and what a repeat is judged by.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    pub(crate) consumer: Consumer<'a>,
    pub(crate) operation: &'a OperationKey,
    pub(crate) fingerprint: &'a Fingerprint,
    pub(crate) message_id: Option<&'a str>,
    pub(crate) redelivered: bool,
    pub(crate) replay: bool,
}

/// What a repeat finds out about the first time.
#[derive(Debug)]
pub struct First {
    /// `None`: the content differs, a conflict.
    pub(crate) duplicate: Option<DuplicateKind>,
    pub(crate) message_id: Option<String>,
    pub(crate) result: Option<String>,
    pub(crate) result_dropped: bool,
    pub(crate) applied_at: SystemTime,
}

/// Kind or `conflict`, message id, result, whether it was dropped, time of the claim.
pub(crate) type FirstValues = (String, Option<String>, Option<String>, bool, i64);

impl First {
    pub(crate) fn read(
        (kind, message_id, result, result_dropped, at): FirstValues,
    ) -> QueryResult<Self> {
        let duplicate = match &*kind {
            "conflict" => None,
            kind => Some(
                DuplicateKind::from_label(kind)
                    .ok_or_else(|| unreadable(format!("the kind of duplicate {kind:?}")))?,
            ),
        };
        Ok(Self { duplicate, message_id, result, result_dropped, applied_at: time(at) })
    }
}

/// How an operation took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationVerdict {
    /// Its handler applied it.
    Applied,
    /// Its handler found it out of date and left things as they were.
    Stale,
}

impl OperationVerdict {
    /// Every verdict.
    pub const ALL: [Self; 2] = [Self::Applied, Self::Stale];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Stale => "stale",
        }
    }

    /// As stored in `inbox_operations.verdict`, where NULL stands for applied: what nearly every row
    /// says costs none a byte.
    pub(crate) const fn stored(self) -> Option<&'static str> {
        match self {
            Self::Applied => None,
            Self::Stale => Some(self.as_str()),
        }
    }

    fn from_stored(text: Option<&str>) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.stored() == text)
    }
}

/// An operation that took effect, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operation {
    /// Its content.
    pub fingerprint: Fingerprint,
    /// The message that was applied, where one was named.
    pub message_id: Option<String>,
    /// How it took effect.
    pub verdict: OperationVerdict,
    /// The handler's result as JSON; `None` stands for null, or for one that was dropped.
    pub result: Option<String>,
    /// When retention dropped the result; `None` where it has not.
    pub result_dropped_at: Option<SystemTime>,
    /// When it was claimed, by the database's clock.
    pub applied_at: SystemTime,
    /// When its handler was done, just before the commit. `None` for one of an older release, and where there
    /// was nothing to keep: applied, with a null for a result.
    pub finished_at: Option<SystemTime>,
    /// How often it came again.
    pub duplicates: i64,
    /// When it came again last.
    pub last_duplicate_at: Option<SystemTime>,
    /// How often its key came with other content.
    pub conflicts: i64,
    /// When that was last.
    pub last_conflict_at: Option<SystemTime>,
    by_kind: [i64; DuplicateKind::ALL.len()],
}

type Content = (Vec<u8>, Option<String>, Option<String>, Option<String>);
type Times = (i64, Option<i64>, Option<i64>);
type Repeats = (i64, Option<i64>, i64, Option<i64>);
/// In the order of [`DuplicateKind::ALL`].
type Kinds = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
pub(super) type OperationValues = (Content, Times, Repeats, Kinds);

impl Operation {
    /// How often it came again in this way. What came before this was counted by kind is in
    /// [`Operation::duplicates`] only.
    #[must_use]
    pub fn duplicates_of(&self, kind: DuplicateKind) -> i64 {
        let at = DuplicateKind::ALL.iter().position(|candidate| *candidate == kind);
        at.map_or(0, |at| self.by_kind[at])
    }

    pub(super) fn read((content, times, repeats, kinds): OperationValues) -> QueryResult<Self> {
        let (bytes, message_id, result, verdict) = content;
        let (replayed, concurrent, redelivered, same_message, other_message) = kinds;
        Ok(Self {
            fingerprint: fingerprint(bytes)?,
            message_id,
            verdict: OperationVerdict::from_stored(verdict.as_deref())
                .ok_or_else(|| unreadable(format!("the verdict {verdict:?}")))?,
            result,
            result_dropped_at: times.2.map(time),
            applied_at: time(times.0),
            finished_at: times.1.map(time),
            duplicates: repeats.0,
            last_duplicate_at: repeats.1.map(time),
            conflicts: repeats.2,
            last_conflict_at: repeats.3.map(time),
            by_kind: [replayed, concurrent, redelivered, same_message, other_message]
                .map(|count| count.unwrap_or(0)),
        })
    }
}
