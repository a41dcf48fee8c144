use std::fmt;

/// How an effect stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Certainly not performed; the next attempt may call.
    Intended,
    /// A call is under way, or the process that made it has died in it.
    Attempted,
    /// Performed; its result is stored and given to everybody who asks again.
    Done,
    /// The provider said no, for good. It is not called again.
    Failed,
    /// Nobody here knows whether it was performed.
    Unknown,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Intended, Self::Attempted, Self::Done, Self::Failed, Self::Unknown];

    /// As stored in `inbox_effects.state`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Attempted => "attempted",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What may be done about an effect whose outcome is unknown: its call timed out or broke, or its process died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The provider honours the key: it performs what it is asked for under one key once, and gives the first answer
    /// to every repetition. An unknown effect is called again.
    RepeatSafe,
    /// The provider can be asked what became of a key. An unknown effect is called again only where it says that it
    /// was not done.
    Ask,
    /// Neither. A person decides.
    Review,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::RepeatSafe, Self::Ask, Self::Review];

    /// As stored in `inbox_effects.policy`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RepeatSafe => "repeat_safe",
            Self::Ask => "ask",
            Self::Review => "review",
        }
    }

    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_reads_back() {
        for state in State::ALL {
            assert_eq!(State::from_stored(state.as_str()), Some(state));
        }
        for policy in Policy::ALL {
            assert_eq!(Policy::from_stored(policy.as_str()), Some(policy));
        }
        assert_eq!((State::from_stored("lost"), Policy::from_stored("hope")), (None, None));
    }
}
