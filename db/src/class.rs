use diesel::result::{DatabaseErrorKind, Error};

/// What a database error asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The transaction lost against another one (serialization failure, deadlock, lock timeout,
    /// SQLite busy): run it again, whole.
    Contention,
    /// The connection is gone or the server is starting or stopping: wait, then connect anew. The
    /// outcome of a COMMIT under way is unknown.
    Unavailable,
    /// A table, column or function is missing: the schema is not ours or not current.
    Schema,
    /// The role may not do this.
    Denied,
    /// Anything else: the statement or its data.
    Other,
}

/// The class of a database error.
///
/// diesel exposes no SQLSTATE for most errors, so several classes are told by the server's English
/// message. A server that speaks another language (`lc_messages`) has them classed as
/// [`Class::Other`]: then a lost race costs a handler attempt instead of a silent retry, and
/// nothing else changes.
#[must_use]
pub fn classify(error: &Error) -> Class {
    let (kind, message) = match error {
        Error::DatabaseError(kind, info) => (kind, info.message()),
        Error::BrokenTransactionManager => return Class::Unavailable,
        Error::RollbackErrorOnCommit { commit_error, .. } => return classify(commit_error),
        _ => return Class::Other,
    };
    match kind {
        DatabaseErrorKind::SerializationFailure => Class::Contention,
        DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::ReadOnlyTransaction => {
            Class::Unavailable
        }
        DatabaseErrorKind::UnableToSendCommand => Class::Unavailable,
        _ => by_message(message),
    }
}

fn by_message(message: &str) -> Class {
    let any = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if any(&[
        "deadlock detected",
        "due to lock timeout",
        "database is locked",
        "database table is locked",
    ]) {
        Class::Contention
    } else if any(&[
        "terminating connection",
        "the database system is",
        "server closed the connection",
        "connection to server",
        "no connection to the server",
        "could not receive data",
        "could not send data",
        "SSL SYSCALL",
        "disk I/O error",
    ]) {
        Class::Unavailable
    } else if any(&["permission denied", "must be owner", "readonly database"]) {
        Class::Denied
    } else if any(&["does not exist", "no such table", "no such column", "has no column named"]) {
        Class::Schema
    } else {
        Class::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(kind: DatabaseErrorKind, message: &str) -> Class {
        classify(&Error::DatabaseError(kind, Box::new(message.to_owned())))
    }

    #[test]
    fn each_class_is_told() {
        use DatabaseErrorKind::{ClosedConnection, SerializationFailure, UniqueViolation, Unknown};
        assert_eq!(with(SerializationFailure, ""), Class::Contention);
        assert_eq!(with(Unknown, "deadlock detected"), Class::Contention);
        assert_eq!(with(Unknown, "canceling statement due to lock timeout"), Class::Contention);
        assert_eq!(with(Unknown, "database is locked"), Class::Contention);
        assert_eq!(with(ClosedConnection, ""), Class::Unavailable);
        assert_eq!(with(Unknown, "the database system is shutting down"), Class::Unavailable);
        assert_eq!(with(Unknown, "relation \"outbox_messages\" does not exist"), Class::Schema);
        assert_eq!(with(Unknown, "permission denied for table outbox_messages"), Class::Denied);
        assert_eq!(with(UniqueViolation, "duplicate key value"), Class::Other);
        assert_eq!(classify(&Error::NotFound), Class::Other);
    }
}
