use super::EffectError;

/// How a demand for an effect ended, or a question about one, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Called, performed and stored.
    Done,
    /// Performed before; the stored result was given.
    Stored,
    /// The provider said no, now or before, or it was called off. Also a compensation that finds it so.
    Refused,
    /// Called, and certainly not performed.
    NotDone,
    /// Called, outcome unknown, to be called again: it is safe to repeat.
    Repeat,
    /// Unknown; the provider is asked.
    Asking,
    /// Unknown; a person decides.
    Review,
    /// A call was under way elsewhere.
    UnderWay,
    /// Asked for before with another request.
    Conflict,
    /// A compensation came before it was known whether there is something to undo.
    NotKnown,
    /// A compensation came for what nobody had performed, and called it off.
    CalledOff,
    /// An attempt reported that it was done after another one, or a decision, had followed it.
    Late,
    /// Its name, request or result cannot be used.
    Unusable,
    /// The ledger could not be used.
    Unavailable,
    /// Its process died: found by whoever looks after effects.
    Lapsed,
    /// The provider said that it was done.
    AskedDone,
    /// The provider said that it was not.
    AskedNotDone,
    /// The provider did not know, or nobody answered.
    AskedUnknown,
}

impl Ending {
    /// Every ending.
    pub const ALL: [Self; 18] = [
        Self::Done,
        Self::Stored,
        Self::Refused,
        Self::NotDone,
        Self::Repeat,
        Self::Asking,
        Self::Review,
        Self::UnderWay,
        Self::Conflict,
        Self::NotKnown,
        Self::CalledOff,
        Self::Late,
        Self::Unusable,
        Self::Unavailable,
        Self::Lapsed,
        Self::AskedDone,
        Self::AskedNotDone,
        Self::AskedUnknown,
    ];

    /// As used as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Stored => "stored",
            Self::Refused => "refused",
            Self::NotDone => "not_done",
            Self::Repeat => "repeat",
            Self::Asking => "asking",
            Self::Review => "review",
            Self::UnderWay => "under_way",
            Self::Conflict => "conflict",
            Self::NotKnown => "not_known",
            Self::CalledOff => "called_off",
            Self::Late => "late",
            Self::Unusable => "unusable",
            Self::Unavailable => "unavailable",
            Self::Lapsed => "lapsed",
            Self::AskedDone => "asked_done",
            Self::AskedNotDone => "asked_not_done",
            Self::AskedUnknown => "asked_unknown",
        }
    }

    pub(super) const fn of(error: &EffectError) -> Self {
        match error {
            EffectError::Refused { .. } => Self::Refused,
            EffectError::NotDone { .. } => Self::NotDone,
            EffectError::UnderWay { .. } => Self::UnderWay,
            EffectError::Repeat { .. } => Self::Repeat,
            EffectError::Asking { .. } => Self::Asking,
            EffectError::Review { .. } => Self::Review,
            EffectError::Conflict { .. } => Self::Conflict,
            EffectError::NotKnown { .. } => Self::NotKnown,
            EffectError::Invalid(_)
            | EffectError::Unwritable { .. }
            | EffectError::Unreadable { .. } => Self::Unusable,
            EffectError::Database(_) | EffectError::Unavailable { .. } => Self::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_ending_has_a_label_of_its_own() {
        let labels: HashSet<_> = Ending::ALL.iter().map(|ending| ending.as_str()).collect();
        assert_eq!(labels.len(), Ending::ALL.len());
    }
}
