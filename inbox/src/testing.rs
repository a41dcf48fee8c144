//! For tests of services that use an inbox.

use std::time::Duration;

use diesel::QueryResult;
use diesel::connection::LoadConnection;

use crate::Consumer;
use crate::backend::InboxBackend;
use crate::store::micros;

/// Lets time pass for what a consumer has parked: retries become due, and what came early grows old, as if
/// so long had gone by. Waits are counted by the database's clock, which no test can move.
///
/// # Errors
/// When the database refuses.
pub fn pass_time<C>(conn: &mut C, consumer: Consumer<'_>, time: Duration) -> QueryResult<()>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::pass_time(conn, consumer, micros(time))
}
