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
    /// A prepared statement of the session is unknown to the server: a transaction pooler stands in
    /// between. Set [`transaction_pooler`](crate::Settings::transaction_pooler).
    Pooler,
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
        // PgBouncer's.
        "server conn crashed",
        "server_login_retry",
        "query_wait_timeout",
        "query_timeout",
        "client_idle_timeout",
        "idle_transaction_timeout",
        "no more connections allowed",
        "pgbouncer cannot connect",
        "pgbouncer is shutting down",
        "no such database",
        "database does not allow connections",
        "server login failed",
        "server connect failed",
    ]) {
        Class::Unavailable
    } else if message.contains("prepared statement") {
        // "does not exist" on another server connection, "already exists" on one that a client with the
        // same names has used.
        Class::Pooler
    } else if any(&["permission denied", "must be owner", "readonly database"]) {
        Class::Denied
    } else if is_schema(message) {
        Class::Schema
    } else {
        Class::Other
    }
}

/// Not whatever "does not exist": savepoints, cursors and tablespaces do not, too.
fn is_schema(message: &str) -> bool {
    let ours = ["relation ", "column ", "function ", "schema ", "type ", "sequence ", "table "];
    let missing =
        message.contains("does not exist") && ours.iter().any(|kind| message.starts_with(kind));
    missing
        || ["no such table", "no such column", "has no column named"]
            .iter()
            .any(|text| message.contains(text))
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
        for text in [
            "query_wait_timeout",
            "server conn crashed?",
            "server login has been failing, try again later (server_login_retry)",
            "no such database: shop",
        ] {
            assert_eq!(with(Unknown, text), Class::Unavailable, "{text}");
        }
        assert_eq!(classify(&Error::NotFound), Class::Other);
    }

    #[test]
    fn only_what_our_schema_consists_of_is_told_missing_from_it() {
        use DatabaseErrorKind::Unknown;
        for text in [
            "column m.deliver_after does not exist",
            concat!("function outbox_enqueue", "(text, text) does not exist"),
            "schema \"shop\" does not exist",
            "table outbox_messages has no column named kind",
        ] {
            assert_eq!(with(Unknown, text), Class::Schema, "{text}");
        }
        for text in [
            "prepared statement \"__diesel_stmt_3\" does not exist",
            "prepared statement \"__diesel_stmt_0\" already exists",
        ] {
            assert_eq!(with(Unknown, text), Class::Pooler, "{text}");
        }
        for text in ["savepoint \"s\" does not exist", "cursor \"c\" does not exist"] {
            assert_eq!(with(Unknown, text), Class::Other, "{text}");
        }
    }
}
