use std::fmt;

/// What an event means to an entity in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict<S> {
    /// The entity moves to this state, which may be the one it is in.
    To(S),
    /// What the event tells has happened already. Nothing changes.
    Duplicate,
    /// The event has been overtaken by later ones. Nothing changes.
    Stale,
    /// The event comes before its time: one that it builds on is still to come. Try it again later.
    Early,
    /// The event makes no sense here. Somebody has to look.
    Review,
}

impl<S> Verdict<S> {
    /// As stored in `inbox_transitions.verdict` and used as a metric label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::To(_) => "to",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::Early => "early",
            Self::Review => "review",
        }
    }
}

impl<S> fmt::Display for Verdict<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
