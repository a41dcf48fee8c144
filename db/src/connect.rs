//! Opens one connection, and says why it could not be opened.

use diesel::ConnectionError;
use diesel::result::Error;

use crate::address::{redacted, scrubbed};
use crate::{Backend, Class, OpenError, Refusal, Settings, classify};

pub(crate) fn connected<C: Backend>(
    full: &str,
    address: &str,
    settings: &Settings,
) -> Result<C, OpenError> {
    let mut conn = C::establish(full).map_err(|error| refused::<C>(&error, address))?;
    conn.prepare(settings).map_err(|error| unprepared::<C>(&error, address))?;
    Ok(conn)
}

/// A server that goes down now comes back, and a file that is busy comes free; a server that is too old does not
/// change. A pooler says here what the server behind it thinks of the login.
fn unprepared<C: Backend>(error: &Error, address: &str) -> OpenError {
    let (address, reason) = (redacted(address), scrubbed(&error.to_string(), address));
    match (classify(error), C::refusal(&reason)) {
        (Class::Unavailable | Class::Contention, Refusal::Unreachable) => {
            OpenError::Unreachable { address, reason }
        }
        _ => OpenError::Unsuitable { address, reason },
    }
}

fn refused<C: Backend>(error: &ConnectionError, address: &str) -> OpenError {
    let reason = scrubbed(&error.to_string(), address);
    let shown = redacted(address);
    match error {
        ConnectionError::InvalidConnectionUrl(_) | ConnectionError::InvalidCString(_) => {
            OpenError::BadAddress { reason }
        }
        _ => match C::refusal(&reason) {
            Refusal::Unreachable => OpenError::Unreachable { address: shown, reason },
            Refusal::Login => OpenError::LoginRefused { address: shown, reason },
            Refusal::Unproven => OpenError::Unproven { address: shown, reason },
            Refusal::Parameter => OpenError::BadAddress {
                reason: format!(
                    "{reason}: the pooler does not pass it on; take it out of the address and set what it was for with \
                     ALTER ROLE … SET (search_path, for example)"
                ),
            },
        },
    }
}

#[cfg(all(test, feature = "postgres", feature = "sqlite"))]
mod tests {
    use diesel::result::DatabaseErrorKind::{self, ClosedConnection, Unknown};
    use diesel::{PgConnection, SqliteConnection};

    use super::*;

    fn needs_operator<C: Backend>(kind: DatabaseErrorKind, text: &str) -> bool {
        let error = Error::DatabaseError(kind, Box::new(text.to_owned()));
        unprepared::<C>(&error, "postgres://u@h/n").needs_operator()
    }

    #[test]
    fn a_connection_that_ends_right_after_it_was_opened_is_waited_for() {
        let ended = "terminating connection due to administrator command";
        assert!(!needs_operator::<PgConnection>(Unknown, ended));
        assert!(!needs_operator::<PgConnection>(ClosedConnection, ""));
        assert!(!needs_operator::<SqliteConnection>(Unknown, "database is locked"));
    }

    #[test]
    fn a_server_that_cannot_be_used_is_not_waited_for() {
        assert!(needs_operator::<PgConnection>(Unknown, "PostgreSQL 13 or newer is needed"));
        let refused = "server login failed: FATAL: password authentication failed for user";
        assert!(needs_operator::<PgConnection>(Unknown, refused));
    }
}
