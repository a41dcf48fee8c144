use diesel::connection::LoadConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;

use crate::row::{DeliverAfter, NewRow};

diesel::table! {
    /// The columns a producer sets; the database fills in the others.
    outbox_messages (id) {
        id -> Text,
        kind -> Text,
        operation -> Text,
        ordering_key -> Nullable<Text>,
        exchange -> Text,
        routing_key -> Text,
        content_type -> Text,
        headers -> Text,
        payload -> Binary,
        deliver_after -> Nullable<BigInt>,
    }
}

diesel::define_sql_function! {
    #[sql_name = "unixepoch"]
    fn unix_epoch(modifier: diesel::sql_types::Text) -> diesel::sql_types::Double;
}

/// Inserts the rows in order. A cached statement per row: there is no round trip to save.
pub(crate) fn insert<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    rows: &[NewRow],
) -> QueryResult<()> {
    use outbox_messages::dsl;
    for NewRow { message, deliver_after } in rows {
        let due = match deliver_after.map(DeliverAfter::micros) {
            None => None,
            Some((Some(delay), _)) => Some(now(conn)?.saturating_add(delay)),
            Some((None, due)) => due,
        };
        diesel::insert_into(dsl::outbox_messages)
            .values((
                dsl::id.eq(message.id.to_string()),
                dsl::kind.eq(&message.kind),
                dsl::operation.eq(&message.operation),
                dsl::ordering_key.eq(message.ordering_key.as_ref()),
                dsl::exchange.eq(&message.exchange),
                dsl::routing_key.eq(&message.routing_key),
                dsl::content_type.eq(&message.content_type),
                dsl::headers.eq(message.headers.to_json()),
                dsl::payload.eq(&message.payload[..]),
                dsl::deliver_after.eq(due),
            ))
            .execute(conn)?;
    }
    Ok(())
}

/// Takes the one write lock, if the transaction does not have it yet: from here on there is no other
/// writer, of this key or of any.
pub(crate) fn serialize<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    _ordering_key: &str,
) -> QueryResult<()> {
    diesel::sql_query("UPDATE counterfoil_schema SET name = name WHERE false")
        .execute(conn)
        .map(|_| ())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "microseconds since 1970 fit 63 bits for 290,000 years"
)]
fn now<C: LoadConnection<Backend = Sqlite>>(conn: &mut C) -> QueryResult<i64> {
    let seconds: f64 = diesel::select(unix_epoch("subsec")).get_result(conn)?;
    Ok((seconds * 1e6) as i64)
}
