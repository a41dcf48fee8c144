use std::time::Duration;

use diesel::result::Error;

/// Why a database could not be opened. No text holds a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nobody answers, or the file cannot be opened; or it ended the connection, or was busy, while that was set up.
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
        "the database {address} refused the login: {reason}; check user, password, client_cert_file and pg_hba.conf"
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
    /// TLS is required and failed, or the server's certificate does not prove who it is. Waiting does
    /// not cure it.
    #[error(
        "the database {address} could not prove who it is: {reason}; check ca_file (sslrootcert), the host name in its certificate and its dates"
    )]
    Unproven {
        /// Where, without user and password.
        address: String,
        /// What the client library said.
        reason: String,
    },
    /// A setting would send the password and the data to whoever answers. Waiting does not cure it.
    #[error("{setting} = {value} for the database {address}: {remedy}")]
    Plaintext {
        /// Where, without user and password.
        address: String,
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What to do.
        remedy: String,
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
    /// The work did not come back in time; its outcome is unknown. Only from
    /// [`Db::call_within`](crate::Db::call_within).
    #[error(
        "no answer from the database within {after:?}; check whether the server or its sessions hang"
    )]
    TimedOut {
        /// How long was waited.
        after: Duration,
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
    /// The transaction around the work could not be begun; the work was not run. Only with
    /// [`transaction_pooler`](crate::Settings::transaction_pooler).
    #[error("no transaction could be begun: {0}")]
    Begin(#[source] Error),
    /// The transaction around the work could not be committed; where the connection was lost its
    /// outcome is unknown. Only with [`transaction_pooler`](crate::Settings::transaction_pooler).
    #[error("the transaction could not be committed: {0}")]
    Commit(#[source] Error),
    /// The work's own error.
    #[error(transparent)]
    Work(E),
}

impl<E> CallError<E> {
    /// The same with another error of the work's own.
    pub fn map<F>(self, work: impl FnOnce(E) -> F) -> CallError<F> {
        match self {
            Self::PoolExhausted { after, reason } => CallError::PoolExhausted { after, reason },
            Self::TimedOut { after } => CallError::TimedOut { after },
            Self::Panicked { message } => CallError::Panicked { message },
            Self::Cancelled => CallError::Cancelled,
            Self::Begin(error) => CallError::Begin(error),
            Self::Commit(error) => CallError::Commit(error),
            Self::Work(error) => CallError::Work(work(error)),
        }
    }
}
