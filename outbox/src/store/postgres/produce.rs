use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use message::Message;

use crate::row::NewRow;
use crate::store::unnest;

pub(crate) mod types {
    //! `jsonb` as its text: building a tree of values for each row would cost more than the row.
    use diesel::deserialize::FromSqlRow;
    use diesel::expression::AsExpression;
    use diesel::pg::Pg;
    use diesel::serialize::{IsNull, Output, Result, ToSql};
    use std::io::Write;

    #[derive(diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
    #[diesel(postgres_type(oid = 3802, array_oid = 3807))]
    pub struct JsonbText;

    #[derive(Debug, AsExpression, FromSqlRow)]
    #[diesel(sql_type = JsonbText)]
    pub struct Json(pub(crate) String);

    impl ToSql<JsonbText, Pg> for Json {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> Result {
            // The version byte of jsonb's binary form, then its text.
            out.write_all(&[1])?;
            out.write_all(self.0.as_bytes())?;
            Ok(IsNull::No)
        }
    }
}

diesel::table! {
    use super::types::JsonbText;
    use diesel::sql_types::*;

    /// The columns a producer sets; the database fills in the others.
    outbox_messages (id) {
        id -> Uuid,
        kind -> Text,
        operation -> Text,
        ordering_key -> Nullable<Text>,
        exchange -> Text,
        routing_key -> Text,
        content_type -> Text,
        headers -> JsonbText,
        payload -> Binary,
    }
}

/// Inserts the rows in order: one alone through a cached statement, many with one statement.
pub(crate) fn insert<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    rows: &[NewRow],
) -> QueryResult<()> {
    match rows {
        [NewRow { message, deliver_after: None }] => one(conn, message),
        rows => unnest::many(rows).execute(conn).map(|_| ()),
    }
}

/// Waits until no other open transaction has called this with the same key, and keeps others
/// waiting until this transaction ends. The same lock as in the SQL function `outbox_enqueue`.
pub(crate) fn serialize<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    ordering_key: &str,
) -> QueryResult<()> {
    unnest::lock(ordering_key).execute(conn).map(|_| ())
}

fn one<C: LoadConnection<Backend = Pg>>(conn: &mut C, message: &Message) -> QueryResult<()> {
    use outbox_messages::dsl;
    diesel::insert_into(dsl::outbox_messages)
        .values((
            dsl::id.eq(message.id.as_uuid()),
            dsl::kind.eq(&message.kind),
            dsl::operation.eq(&message.operation),
            dsl::ordering_key.eq(message.ordering_key.as_ref()),
            dsl::exchange.eq(&message.exchange),
            dsl::routing_key.eq(&message.routing_key),
            dsl::content_type.eq(&message.content_type),
            dsl::headers.eq(types::Json(message.headers.to_json())),
            dsl::payload.eq(&message.payload[..]),
        ))
        .execute(conn)
        .map(|_| ())
}
