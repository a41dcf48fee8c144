use diesel::QueryResult;
use diesel::connection::LoadConnection;
use message::OperationKey;

use crate::Consumer;
use crate::backend::InboxBackend;
use crate::store::{Operation, Parked};

/// What is stored of an operation; `None` where it has not taken effect.
///
/// # Errors
/// When the database refuses.
pub fn operation<C>(
    conn: &mut C,
    consumer: Consumer<'_>,
    operation: &OperationKey,
) -> QueryResult<Option<Operation>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::operation(conn, consumer, operation)
}

/// The parked deliveries of a consumer with a number greater than `after`, in order of their numbers,
/// at most `limit`. Page on with the last one's number; begin with 0.
///
/// # Errors
/// When the database refuses.
pub fn parked<C>(
    conn: &mut C,
    consumer: Consumer<'_>,
    after: i64,
    limit: u32,
) -> QueryResult<Vec<Parked>>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::parked(conn, consumer, after, i64::from(limit))
}
