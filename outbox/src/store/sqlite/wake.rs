use diesel::QueryResult;
use diesel::sqlite::SqliteConnection;

use crate::admin::{AdminError, Order};

/// There is nothing to subscribe to; a relay is refused before it gets here.
pub(crate) fn listen(_conn: &mut SqliteConnection) -> QueryResult<()> {
    Ok(())
}

/// Nothing comes in by itself.
pub(crate) fn heard(_conn: &mut SqliteConnection) -> QueryResult<bool> {
    Ok(false)
}

/// Nobody would be told.
pub(crate) fn watch(_conn: &mut SqliteConnection) -> QueryResult<bool> {
    Ok(false)
}

/// Nothing is held.
pub(crate) fn unwatch(_conn: &mut SqliteConnection) -> QueryResult<()> {
    Ok(())
}

/// Refused, either way.
pub(crate) fn set_wakeup(
    _conn: &mut SqliteConnection,
    on: bool,
    _order: &Order,
) -> Result<bool, AdminError> {
    Err(AdminError::Unusable {
        field: "wakeup",
        value: if on { "on" } else { "off" }.to_owned(),
        reason: "SQLite tells nobody of a commit; a relay of a file polls, see poll_idle"
            .to_owned(),
    })
}
