use std::fmt;

use super::Reply;

/// Why a handler's transaction is to be rolled back. The key stays free.
///
/// Any error becomes one through `?`, and is answered with 500; contention (deadlock, serialization
/// failure) repeats the transaction instead.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failed {
    /// With this answer, which is not kept: a repeat runs the handler again.
    Reply(Box<Reply>),
    /// With 500. What it says goes to the log and not to the client.
    Error(Box<dyn std::error::Error + Send + Sync>),
}

impl Failed {
    /// Rolls back with 500 and this for the log: a text, `anyhow::Error`, anything that can be an error.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Error(source.into())
    }

    /// Rolls back with an answer of the handler's own.
    #[must_use]
    pub fn reply(reply: Reply) -> Self {
        Self::Reply(Box::new(reply))
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Error(Box::new(error))
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(reply) => write!(f, "answered with {}", reply.status),
            Self::Error(error) => error.fmt(f),
        }
    }
}
