use std::time::Duration;

use db::CallError;
use diesel::result::Error;
use message::InvalidMessage;

use super::ProviderKey;

/// Why an effect has no result to go on with.
///
/// In a handler's `prepare` hand it on with `?`: the inbox finds it, also below other errors, and does with the
/// message what its variants say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EffectError {
    /// The provider said no, now or before, or the effect was called off by its compensation. It is not called
    /// again. A message is parked as rejected.
    #[error("effect {effect:?} was refused: {reason}")]
    Refused {
        /// Its name.
        effect: String,
        /// What the provider said.
        reason: String,
    },
    /// It was certainly not performed, this time. A message is retried as after any failure.
    #[error("effect {effect:?} was not performed: {reason}")]
    NotDone {
        /// Its name.
        effect: String,
        /// Why not.
        reason: String,
    },
    /// A call is under way elsewhere, or its process has died and may yet be alive. A message comes again when that
    /// is over, without spending an attempt.
    #[error("effect {effect:?} is under way elsewhere, for another {again_in:?} at most")]
    UnderWay {
        /// Its name.
        effect: String,
        /// Until then nobody else calls.
        again_in: Duration,
    },
    /// Nobody knows whether it was performed, and it will be called again under its key: it is safe to repeat. A
    /// message is retried as after any failure.
    #[error("effect {effect:?} has an unknown outcome and is repeated under key {key}: {reason}")]
    Repeat {
        /// Its name.
        effect: String,
        /// What the provider knows it by.
        key: ProviderKey,
        /// What happened.
        reason: String,
    },
    /// Nobody knows whether it was performed, and the provider is asked. A message comes again when it is known, or
    /// when the question is due, without spending an attempt.
    #[error(
        "effect {effect:?} has an unknown outcome; the provider is asked about key {key} in {again_in:?}"
    )]
    Asking {
        /// Its name.
        effect: String,
        /// What the provider knows it by.
        key: ProviderKey,
        /// When the question is due.
        again_in: Duration,
    },
    /// Nobody knows whether it was performed, and a person has to decide: `relay effects`. A message waits for that
    /// without spending attempts, and comes again at once when it is decided; one of another operation within a minute.
    #[error(
        "effect {effect:?} has an unknown outcome; find out at the provider what became of key {key}, and say so with `relay effects decide`"
    )]
    Review {
        /// Its name.
        effect: String,
        /// What the provider knows it by.
        key: ProviderKey,
        /// When to look again, for whoever the decision does not wake.
        again_in: Option<Duration>,
    },
    /// The same effect of the same operation was asked for with another request. A message is parked for review.
    #[error(
        "effect {effect:?} of this operation was asked for before with another request; give each request a name of its own, or the operation another key"
    )]
    Conflict {
        /// Its name.
        effect: String,
    },
    /// Its compensation was asked for, and nobody knows what is to be undone: it is open, or it was refused and an
    /// attempt has said since that it was done. Only from [`Effect::compensate`](super::Effect::compensate).
    #[error(
        "effect {effect:?} cannot be compensated before it is known whether it was performed: it is {state}"
    )]
    NotKnown {
        /// Its name.
        effect: String,
        /// How it stands.
        state: super::State,
        /// When to look again.
        again_in: Duration,
    },
    /// The name cannot be used. Nothing was sent to the database.
    #[error("the effect cannot be named so: {0}")]
    Invalid(#[from] InvalidMessage),
    /// The request or the result cannot be written as JSON. Where it was the result the effect is done, without one.
    #[error("effect {effect:?} has a {what} that cannot be written as JSON: {source}")]
    Unwritable {
        /// Its name.
        effect: String,
        /// `request` or `result`.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The stored result cannot be read as this type: the type has changed since. The effect was performed.
    #[error(
        "effect {effect:?} was performed before, and its stored result cannot be read as this type: {source}; keep the result type readable for as long as effects are kept"
    )]
    Unreadable {
        /// Its name.
        effect: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The ledger could not be read or written. If a call had been made its outcome is unknown.
    #[error("the ledger of effects refused: {0}")]
    Database(#[source] Error),
    /// The ledger could not be reached. If a call had been made its outcome is unknown.
    #[error("the ledger of effects cannot be used: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

impl From<CallError<Error>> for EffectError {
    fn from(error: CallError<Error>) -> Self {
        match error {
            CallError::Work(error) | CallError::Begin(error) | CallError::Commit(error) => {
                Self::Database(error)
            }
            other @ (CallError::PoolExhausted { .. }
            | CallError::TimedOut { .. }
            | CallError::Panicked { .. }
            | CallError::Cancelled) => Self::Unavailable { reason: other.to_string() },
        }
    }
}

/// What an inbox does with a message whose effect has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// As after any failure.
    Retry,
    /// Not the message's fault: it comes again after so long, or when the effect is decided.
    Wait(Duration),
    /// The same, when a person has decided.
    WaitForDecision,
    /// A person decides about the message.
    Review,
    Reject,
    /// The database is waited for.
    Unavailable,
}

impl EffectError {
    fn course(&self) -> Course {
        match self {
            Self::Refused { .. } => Course::Reject,
            Self::NotDone { .. } | Self::Repeat { .. } | Self::Database(_) => Course::Retry,
            Self::UnderWay { again_in, .. }
            | Self::Asking { again_in, .. }
            | Self::NotKnown { again_in, .. } => Course::Wait(*again_in),
            Self::Review { again_in, .. } => again_in.map_or(Course::WaitForDecision, Course::Wait),
            Self::Conflict { .. }
            | Self::Invalid(_)
            | Self::Unwritable { .. }
            | Self::Unreadable { .. } => Course::Review,
            Self::Unavailable { .. } => Course::Unavailable,
        }
    }
}

/// What the first effect's error in a chain of sources asks for; `None` where there is none.
pub(crate) fn course_in(error: &(dyn std::error::Error + 'static)) -> Option<Course> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(effect) = error.downcast_ref::<EffectError>() {
            return Some(effect.course());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("business")]
    struct Business(#[source] EffectError);

    #[test]
    fn an_effect_s_error_is_found_below_others() {
        let again_in = Duration::from_secs(3);
        let error = EffectError::UnderWay { effect: "e".into(), again_in };
        assert_eq!(course_in(&Business(error)), Some(Course::Wait(again_in)));
        assert_eq!(course_in(&Error::NotFound), None);
    }
}
