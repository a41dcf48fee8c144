use std::fmt;

/// How a request ended; each ends in exactly one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestEnding {
    /// The handler ran, and its reply is kept.
    First,
    /// An earlier request of the key had ended: its reply was given.
    Replayed,
    /// The same, and its reply was not kept: 409.
    NotKept,
    /// The key came before with other content: 422.
    Mismatch,
    /// An earlier request of the key is still running: 409.
    InProgress,
    /// The handler answered and nothing is kept: it rolled back, or began no transaction, or the policy keeps no such
    /// status.
    Refused,
    /// The request names no key and needs none, or its method is safe.
    Unkeyed,
    /// The key is missing: 400.
    MissingKey,
    /// The key cannot be read: 400.
    BadKey,
    /// The body is over the limit: 413.
    TooLarge,
    /// The body cannot be read: 400 or 415.
    BadBody,
    /// The handler failed: 500. Everything is undone, except on SQLite where it has ended its own transaction.
    Failed,
    /// The handler panicked: 500. Everything is undone, in the layer nothing.
    Panicked,
    /// The database is away or too busy, nothing was done: 503.
    Unavailable,
    /// Whether it took effect is not known; a repeat finds out: 503.
    Unknown,
    /// Somebody else took the run over before it could be completed: that one's answer was given, or 409, and where
    /// there is none any more the run's own. Layer only.
    Overtaken,
    /// The handler answered, and its reply could not be kept. A repeat gets 409; where the database could not be
    /// reached either, the key is free when the lease ends. Layer only.
    Unrecorded,
    /// The stored reply cannot be read; the handler does not run: 409.
    Unreadable,
    /// The application names no caller: 500.
    Misconfigured,
    /// The client went away before there was an answer. A run that had begun is finished all the same, and a repeat
    /// finds what came of it.
    Gone,
}

impl RequestEnding {
    /// Every ending.
    pub const ALL: [Self; 20] = [
        Self::First,
        Self::Replayed,
        Self::NotKept,
        Self::Mismatch,
        Self::InProgress,
        Self::Refused,
        Self::Unkeyed,
        Self::MissingKey,
        Self::BadKey,
        Self::TooLarge,
        Self::BadBody,
        Self::Failed,
        Self::Panicked,
        Self::Unavailable,
        Self::Unknown,
        Self::Overtaken,
        Self::Unrecorded,
        Self::Unreadable,
        Self::Misconfigured,
        Self::Gone,
    ];

    /// Its name, as in the label `ending`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Replayed => "replayed",
            Self::NotKept => "not_kept",
            Self::Mismatch => "mismatch",
            Self::InProgress => "in_progress",
            Self::Refused => "refused",
            Self::Unkeyed => "unkeyed",
            Self::MissingKey => "missing_key",
            Self::BadKey => "bad_key",
            Self::TooLarge => "too_large",
            Self::BadBody => "bad_body",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::Overtaken => "overtaken",
            Self::Unrecorded => "unrecorded",
            Self::Unreadable => "unreadable",
            Self::Misconfigured => "misconfigured",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for RequestEnding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
