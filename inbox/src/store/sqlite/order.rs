use diesel::connection::LoadConnection;
use diesel::sql_types::BigInt;
use diesel::sqlite::Sqlite;
use diesel::{OptionalExtension, QueryResult, RunQueryDsl};

use crate::Consumer;
use crate::store::statement::{Bind, Statement};

/// The first parked message that the others of its ordering key wait for; with `skip` that is nothing under
/// review.
pub(crate) fn head_of_key<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    key: &str,
    skip: bool,
) -> QueryResult<Option<i64>> {
    Statement::<3, BigInt>::new(
        concat!(
            "SELECT id FROM inbox_parked
             WHERE consumer = ? AND ordering_key = ? AND (state = 'behind' OR ",
            holding_up!(""),
            ")
             ORDER BY id LIMIT 1"
        ),
        [Bind::Text(consumer.0), Bind::Text(key), Bind::Integer(i32::from(skip))],
    )
    .get_result(conn)
    .optional()
}

/// Makes the first message that waits behind others of its key due, if nothing of the key stands before
/// it any more.
pub(crate) fn promote<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    key: &str,
    skip: bool,
) -> QueryResult<bool> {
    Statement::<5>::new(
        concat!(
            "UPDATE inbox_parked SET state = 'retry', not_before = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
             WHERE id = (SELECT min(id) FROM inbox_parked WHERE consumer = ? AND ordering_key = ? AND state = 'behind')
               AND NOT EXISTS (SELECT 1 FROM inbox_parked AS other
                               WHERE other.consumer = ? AND other.ordering_key = ? AND ",
            holding_up!("other."),
            ")"
        ),
        [
            Bind::Text(consumer.0),
            Bind::Text(key),
            Bind::Text(consumer.0),
            Bind::Text(key),
            Bind::Integer(i32::from(skip)),
        ],
    )
    .execute(conn)
    .map(|rows| rows > 0)
}

/// The same for every key of the consumer: whoever took a head away by other means told nobody.
pub(crate) fn promote_all<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    skip: bool,
) -> QueryResult<usize> {
    Statement::<2>::new(
        concat!(
            "UPDATE inbox_parked SET state = 'retry', not_before = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
             WHERE consumer = ? AND state = 'behind'
               AND NOT EXISTS (SELECT 1 FROM inbox_parked AS other
                               WHERE other.consumer = inbox_parked.consumer
                                 AND other.ordering_key = inbox_parked.ordering_key
                                 AND ((other.state = 'behind' AND other.id < inbox_parked.id) OR ",
            holding_up!("other."),
            "))"
        ),
        [Bind::Text(consumer.0), Bind::Integer(i32::from(skip))],
    )
    .execute(conn)
}

/// Makes all that waits behind others due: the consumer keeps no order (any more).
pub(crate) fn disband<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
) -> QueryResult<usize> {
    Statement::<1>::new(
        "UPDATE inbox_parked SET state = 'retry', not_before = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
         WHERE consumer = ? AND state = 'behind'",
        [Bind::Text(consumer.0)],
    )
    .execute(conn)
}
