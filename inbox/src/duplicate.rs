use std::fmt;

/// How an operation came again. Each duplicate is of exactly one kind; where several fit the first
/// one counts, in the order of [`DuplicateKind::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DuplicateKind {
    /// A replay brought it: somebody asked for it.
    Replay,
    /// The transaction that found it began before the first one's handler was done; before its claim, where
    /// that handler had no result to keep. PostgreSQL only: on SQLite the second writer begins after the first
    /// one's commit.
    Concurrent,
    /// The broker delivered the message again and said so: an answer was lost, or a process.
    Redelivery,
    /// The same message id without the broker's hint: a producer or a relay published it again.
    SameMessage,
    /// The same fact under another message id, or without one.
    OtherMessage,
}

impl DuplicateKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Replay, Self::Concurrent, Self::Redelivery, Self::SameMessage, Self::OtherMessage];

    /// As used as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Concurrent => "concurrent",
            Self::Redelivery => "redelivery",
            Self::SameMessage => "same_message",
            Self::OtherMessage => "other_message",
        }
    }

    pub(crate) fn from_label(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for DuplicateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_and_nothing_else_does() {
        for kind in DuplicateKind::ALL {
            assert_eq!(DuplicateKind::from_label(kind.as_str()), Some(kind));
        }
        assert_eq!(DuplicateKind::from_label("conflict"), None);
    }
}
