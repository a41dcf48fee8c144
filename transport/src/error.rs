use std::time::Duration;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// The broker cannot be used at present. Says nothing about any message: what was in flight has an
/// unknown outcome and is sent again, and no attempt is counted.
///
/// Every text is free of credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// Nobody answers at the address.
    #[error(
        "cannot reach the broker at {address}: {source}; check that it runs and that host and port are right"
    )]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the network said.
        source: Source,
    },
    /// The broker refused the login or the virtual host. Waiting does not cure it.
    #[error(
        "the broker at {address} refused user {user:?} on virtual host {vhost:?}: {reason}; check user, password and permissions"
    )]
    LoginRefused {
        /// Host and port.
        address: String,
        /// The user name tried.
        user: String,
        /// The virtual host tried.
        vhost: String,
        /// What the broker said.
        reason: String,
    },
    /// No TLS connection comes about: one side could not prove who it is, or they have no protocol in
    /// common. Waiting does not cure it, and plain text is never tried instead.
    #[error("no secure connection to the broker at {address}: {reason}")]
    Insecure {
        /// Host and port.
        address: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The settings cannot work with this build or broker. Waiting does not cure it.
    #[error("the broker settings cannot work: {reason}")]
    BadSettings {
        /// What is wrong and what to do.
        reason: String,
    },
    /// The connection or channel was lost.
    #[error("lost the broker: {source}")]
    Lost {
        /// What ended it.
        source: Source,
    },
    /// The broker did not answer within our own deadline.
    #[error(
        "no answer from the broker to {step} within {after:?}; it is sent again on a new connection"
    )]
    Timeout {
        /// What was waited for: connect, publish, confirm, …
        step: &'static str,
        /// How long.
        after: Duration,
    },
    /// The broker takes nothing at present (memory or disk alarm). It does again by itself.
    #[error("the broker blocks publishing: {reason}; free memory or disk there")]
    Blocked {
        /// What the broker said.
        reason: String,
    },
    /// The queue is missing, was deleted, or the broker cancelled the consumer.
    #[error(
        "cannot consume from queue {queue:?}: {reason}; check that the queue exists and may be read"
    )]
    NoQueue {
        /// The queue.
        queue: String,
        /// What the broker said.
        reason: String,
    },
}

impl Unavailable {
    /// Whether only a change of settings or rights can help, so that a program that has just
    /// started should stop and say so instead of waiting.
    #[must_use]
    pub const fn needs_operator(&self) -> bool {
        matches!(self, Self::LoginRefused { .. } | Self::Insecure { .. } | Self::BadSettings { .. })
    }
}
