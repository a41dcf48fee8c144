use diesel::QueryResult;
use diesel::connection::LoadConnection;

use super::TransitionBackend;
use crate::backend::InboxBackend;
use crate::store::{Standing, Transition};

/// Where an entity stands; `None` where it has never moved, or its state is kept in a table of yours.
///
/// # Errors
/// When the database refuses.
pub fn state<C>(conn: &mut C, machine: &str, entity: &str) -> QueryResult<Option<Standing>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::standing(conn, machine, entity)
}

/// What an entity has come through: the decisions with a number greater than `after`, in order of
/// their numbers, at most `limit`. Page on with the last one's number; begin with 0.
///
/// # Errors
/// When the database refuses.
pub fn history<C>(
    conn: &mut C,
    machine: &str,
    entity: &str,
    after: i64,
    limit: u32,
) -> QueryResult<Vec<Transition>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::history(conn, machine, entity, after, i64::from(limit))
}
