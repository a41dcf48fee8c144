use std::time::SystemTime;

use serde::de::DeserializeOwned;

use crate::store::First;
use crate::{DuplicateKind, OnceError};

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a conflict or an operation in progress was not applied"]
#[non_exhaustive]
pub enum Outcome<R> {
    /// It took effect now, if the transaction commits. The handler's result.
    Applied(R),
    /// It took effect before. The result of that time; the handler did not run.
    Duplicate(R),
    /// It took effect before, and retention has dropped the result of that time. The handler did not
    /// run.
    #[non_exhaustive]
    Forgotten {
        /// When the key was claimed first, by the database's clock.
        applied_at: SystemTime,
    },
    /// The key took effect before with other content. The handler did not run.
    #[non_exhaustive]
    Conflict {
        /// When the key was claimed first, by the database's clock.
        first_seen: SystemTime,
        /// The message that was applied then, where one was named.
        first_message_id: Option<String>,
    },
    /// Another transaction is applying it and did not end within
    /// [`Once::wait_at_most`](crate::Once::wait_at_most). The handler did not run; try again later.
    InProgress,
}

/// An outcome with what the engine wants to know beyond it.
pub(crate) enum Answer<R> {
    Applied(R),
    Duplicate {
        kind: DuplicateKind,
        /// `None`: dropped.
        result: Option<R>,
        applied_at: SystemTime,
    },
    Conflict {
        first_seen: SystemTime,
        first_message_id: Option<String>,
    },
    InProgress,
}

impl<R> Answer<R> {
    /// The answer to a repeat.
    pub(crate) fn to_repeat(first: First) -> Result<Self, OnceError>
    where
        R: DeserializeOwned,
    {
        let First { duplicate, message_id, result, result_dropped, applied_at } = first;
        let Some(kind) = duplicate else {
            return Ok(Self::Conflict { first_seen: applied_at, first_message_id: message_id });
        };
        let result = if result_dropped {
            None
        } else {
            let result = serde_json::from_str(result.as_deref().unwrap_or("null"));
            Some(result.map_err(OnceError::UnreadableResult)?)
        };
        Ok(Self::Duplicate { kind, result, applied_at })
    }
}

impl<R> From<Answer<R>> for Outcome<R> {
    fn from(answer: Answer<R>) -> Self {
        match answer {
            Answer::Applied(result) => Self::Applied(result),
            Answer::Duplicate { result: Some(result), .. } => Self::Duplicate(result),
            Answer::Duplicate { result: None, applied_at, .. } => Self::Forgotten { applied_at },
            Answer::Conflict { first_seen, first_message_id } => {
                Self::Conflict { first_seen, first_message_id }
            }
            Answer::InProgress => Self::InProgress,
        }
    }
}
