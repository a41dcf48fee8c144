use std::time::Duration;

use db::{Class, classify};
use diesel::result::Error;
use message::InvalidMessage;

use crate::store::missing;

/// Why an operation could neither be applied nor told to be a duplicate. Roll the transaction back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnceError {
    /// No transaction is open on the connection: claim and effect would commit apart, which is what
    /// an inbox is there to prevent.
    #[error(
        "no transaction is open on this connection; call once inside `conn.transaction(|tx| …)` together with the business change"
    )]
    NoTransaction,
    /// The consumer's name or the operation key breaks a limit. Nothing was sent to the database.
    #[error("the operation cannot be claimed: {0}")]
    Invalid(#[from] InvalidMessage),
    /// The table is missing.
    #[error(
        "there is no inbox on this connection's search path: {0}; run `relay migrate` on this database"
    )]
    MissingTable(#[source] Error),
    /// `#` begins the number of a generation. Nothing was sent to the database.
    #[error(
        "{consumer:?} cannot be a consumer's name: `#` begins the number of a generation, as in `billing#2`; use another character"
    )]
    ReservedName {
        /// The name.
        consumer: String,
    },
    /// The handler's result cannot be written as JSON. Its effect is rolled back with the transaction.
    #[error("the handler's result cannot be written as JSON: {0}")]
    UnwritableResult(#[source] serde_json::Error),
    /// The stored result of the first time cannot be read as this type: the type has changed since.
    /// The operation did take effect.
    #[error(
        "the operation took effect before, and its stored result cannot be read as this type: {0}; keep the result type readable for as long as operations are kept"
    )]
    UnreadableResult(#[source] serde_json::Error),
    /// The row was there and gone again, several times in a row: something deletes rows as fast as
    /// they are written.
    #[error(
        "the operation's row disappears as fast as it is written; check what deletes the rows of the inbox"
    )]
    RowGone,
    /// The database refused.
    #[error("the operation could not be claimed: {0}")]
    Database(#[source] Error),
}

impl From<Error> for OnceError {
    fn from(error: Error) -> Self {
        let missing = missing::operations(&error);
        if missing { Self::MissingTable(error) } else { Self::Database(error) }
    }
}

/// Lets a business transaction whose error is diesel's use `once` as it is. The text is kept.
impl From<OnceError> for Error {
    fn from(error: OnceError) -> Self {
        match error {
            OnceError::Database(error) | OnceError::MissingTable(error) => error,
            other => Self::QueryBuilderError(Box::new(other)),
        }
    }
}

/// The class of the first database error in a chain of sources; `None` where there is none.
pub(crate) fn class_in(error: &(dyn std::error::Error + 'static)) -> Option<Class> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(database) = error.downcast_ref::<Error>() {
            // An error of ours may have been carried through diesel's own type.
            return match database {
                Error::QueryBuilderError(inner) => class_in(&**inner).or(Some(Class::Other)),
                database => Some(classify(database)),
            };
        }
        next = error.source();
    }
    None
}

/// Why an inbox cannot be built.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Nothing is registered: every message would be parked.
    #[error("the inbox has no handler; register one with `on` or `handler`")]
    NoHandlers,
    /// Two handlers for one kind: which one applies would depend on their order.
    #[error(
        "kind {kind:?} has two handlers; register one, or build a second inbox with another consumer and queue"
    )]
    HandledTwice {
        /// The kind.
        kind: &'static str,
    },
    /// A key function for a kind that has no handler.
    #[error(
        "kind {kind:?} has an operation key and no handler; register one with `on` or `handler`, or correct the kind"
    )]
    KeyWithoutHandler {
        /// The kind.
        kind: String,
    },
    /// The consumer's name, or a kind, cannot be used.
    #[error("the inbox cannot be named so: {0}")]
    Invalid(#[from] InvalidMessage),
    /// `#` begins the number of a generation.
    #[error(
        "{consumer:?} cannot be a consumer's name: `#` begins the number of a generation; use another character, and `generation` for a rebuild"
    )]
    ReservedName {
        /// The name.
        consumer: String,
    },
    /// A rebuild applies the history again, and a handler would reach the world again with it.
    #[error(
        "generation {generation} applies the history again, and the handler of kind {kind:?} has side effects; build the projection with handlers that are ReplaySafe, in an inbox of their own"
    )]
    NotReplaySafe {
        /// The kind.
        kind: &'static str,
        /// The generation.
        generation: u32,
    },
    /// A setting makes no sense.
    #[error("{setting} is {value}; {remedy}")]
    BadSetting {
        /// Its name in [`Settings`](crate::Settings).
        setting: &'static str,
        /// Its value.
        value: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A handler that hangs would hold its operation in the database for longer than the inbox waits.
    #[error(
        "{limit} of the database is {value:?} and handler_deadline {deadline:?}; lower the first (zero means no limit) or raise the second"
    )]
    OutlivesDeadline {
        /// Its name in [`db::Settings`].
        limit: &'static str,
        /// Its value.
        value: std::time::Duration,
        /// [`Settings::handler_deadline`](crate::Settings::handler_deadline).
        deadline: std::time::Duration,
    },
    /// Operations would be forgotten while copies of their messages can still come, and those would
    /// be applied again.
    #[error(
        "retention.operations is {} and a message can come again for {}: {} for retries, {} at the broker (retention.broker), {} of replays (retention.replay); raise retention.operations to at least the sum, or lower what makes it up",
        humantime::format_duration(*operations), humantime::format_duration(*needed),
        humantime::format_duration(*retries), humantime::format_duration(*broker),
        humantime::format_duration(*replay)
    )]
    WindowTooShort {
        /// [`Retention::operations`](crate::retention::Retention::operations).
        operations: Duration,
        /// The least it must be.
        needed: Duration,
        /// How long a received message can be tried again, by [`Settings`](crate::Settings).
        retries: Duration,
        /// [`Retention::broker`](crate::retention::Retention::broker).
        broker: Duration,
        /// [`Retention::replay`](crate::retention::Retention::replay).
        replay: Duration,
    },
    /// Workers would wait for each other's connections.
    #[error(
        "concurrency is {concurrency} and the pool holds {pool_size} connections; raise the pool size to at least the concurrency, or lower that"
    )]
    PoolTooSmall {
        /// Deliveries applied at once.
        concurrency: usize,
        /// [`db::Settings::pool_size`].
        pool_size: u32,
    },
}

/// Why an inbox stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The tables are not what this build needs. Found before anything is received.
    #[error(transparent)]
    Schema(#[from] migrations::SchemaError),
    /// The broker cannot be used with these settings or rights. Only at the first connection; later
    /// the inbox waits, because credentials can be rotated under it.
    #[error(transparent)]
    Broker(#[from] transport::Unavailable),
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    Cancelled,
}

#[cfg(test)]
mod tests {
    use diesel::result::DatabaseErrorKind;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("business")]
    struct Business(#[source] OnceError);

    fn deadlock() -> Error {
        Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new("deadlock detected".to_owned()))
    }

    #[test]
    fn a_database_error_is_found_below_others() {
        assert_eq!(class_in(&Business(deadlock().into())), Some(Class::Contention));
        assert_eq!(class_in(&Business(OnceError::NoTransaction)), None);
        let carried = Error::QueryBuilderError(Box::new(Business(deadlock().into())));
        assert_eq!(class_in(&carried), Some(Class::Contention));
    }

    #[test]
    fn a_missing_table_has_its_name_and_survives_diesel_s_type() {
        let text = "relation \"inbox_operations\" does not exist".to_owned();
        let error =
            OnceError::from(Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text)));
        assert!(matches!(error, OnceError::MissingTable(_)));
        assert!(error.to_string().contains("relay migrate"));
        assert!(matches!(Error::from(error), Error::DatabaseError(..)));
        assert!(Error::from(OnceError::NoTransaction).to_string().contains("no transaction"));
    }
}
