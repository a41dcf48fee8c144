use std::time::Duration;

/// Why a database could not be opened. No text holds a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nobody answers, or the file cannot be opened.
    #[error(
        "cannot reach the database {address}: {reason}; check that it runs and that host, port and name are right"
    )]
    Unreachable {
        /// Where, without user and password.
        address: String,
        /// What the client library said.
        reason: String,
    },
    /// The login was refused. Waiting does not cure it.
    #[error(
        "the database {address} refused the login: {reason}; check user, password and pg_hba.conf"
    )]
    LoginRefused {
        /// Where, without user and password.
        address: String,
        /// What the server said.
        reason: String,
    },
    /// The address cannot be read. Waiting does not cure it.
    #[error(
        "not a usable database address: {reason}; use postgres://user:password@host:port/name or a path for SQLite"
    )]
    BadAddress {
        /// What is wrong with it.
        reason: String,
    },
    /// The server or library is too old, or a guard could not be set. Waiting does not cure it.
    #[error("the database {address} cannot be used: {reason}")]
    Unsuitable {
        /// Where, without user and password.
        address: String,
        /// What is wrong and what to do.
        reason: String,
    },
}

impl OpenError {
    /// Whether only a change of settings or rights can help.
    #[must_use]
    pub const fn needs_operator(&self) -> bool {
        !matches!(self, Self::Unreachable { .. })
    }
}

/// Why a call to the database brought no result. `E` is the work's own error.
#[derive(Debug, thiserror::Error)]
pub enum CallError<E> {
    /// No connection became free in time, or none could be opened.
    #[error(
        "no database connection within {after:?}: {reason}; raise the pool size if all are in use, else check the database"
    )]
    PoolExhausted {
        /// How long was waited.
        after: Duration,
        /// What the pool said last.
        reason: String,
    },
    /// The work panicked. Its connection was dropped, and with it its transaction.
    #[error("the work on the database connection panicked: {message}")]
    Panicked {
        /// The panic's text.
        message: String,
    },
    /// The runtime is shutting down and the work was not run.
    #[error("the runtime is shutting down")]
    Cancelled,
    /// The work's own error.
    #[error(transparent)]
    Work(E),
}
