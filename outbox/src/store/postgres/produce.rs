use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{BoxedSqlQuery, SqlQuery};
use diesel::sql_types::{Array, BigInt, Binary, Nullable, Text, Uuid};
use message::Message;

use crate::row::{DeliverAfter, NewRow};

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
        rows => many(rows).execute(conn).map(|_| ()),
    }
}

/// Waits until no other open transaction has called this with the same key, and keeps others
/// waiting until this transaction ends. The same lock as in the SQL function `outbox_enqueue`.
pub(crate) fn serialize<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    ordering_key: &str,
) -> QueryResult<()> {
    lock(ordering_key).execute(conn).map(|_| ())
}

pub(crate) fn lock(ordering_key: &str) -> BoxedSqlQuery<'_, Pg, SqlQuery> {
    diesel::sql_query("SELECT pg_advisory_xact_lock(hashtextextended($1, 1131376460))")
        .into_boxed::<Pg>()
        .bind::<Text, _>(ordering_key)
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

/// One INSERT for any number of rows. Arrays and not a VALUES list: a constant text, no limit of
/// 65,535 binds, and faster.
pub(crate) fn many(rows: &[NewRow]) -> BoxedSqlQuery<'static, Pg, SqlQuery> {
    fn texts(rows: &[NewRow], field: impl Fn(&Message) -> &str) -> Vec<String> {
        rows.iter().map(|row| field(&row.message).to_owned()).collect()
    }
    let micros = |row: &NewRow| row.deliver_after.map(DeliverAfter::micros).unwrap_or_default();
    diesel::sql_query(
        "INSERT INTO outbox_messages
             (id, kind, operation, ordering_key, exchange, routing_key, content_type, headers, payload, deliver_after)
         SELECT id, kind, operation, ordering_key, exchange, routing_key, content_type, headers::jsonb, payload,
                CASE WHEN delay IS NOT NULL THEN clock_timestamp() + delay * interval '1 microsecond'
                     WHEN due   IS NOT NULL THEN 'epoch'::timestamptz + due * interval '1 microsecond' END
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::bytea[], $10::bigint[], $11::bigint[])
              AS r (id, kind, operation, ordering_key, exchange, routing_key, content_type, headers, payload, delay, due)",
    )
    .into_boxed::<Pg>()
    .bind::<Array<Uuid>, _>(rows.iter().map(|row| *row.message.id.as_uuid()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(texts(rows, |m| &m.kind))
    .bind::<Array<Text>, _>(texts(rows, |m| &m.operation))
    .bind::<Array<Nullable<Text>>, _>(rows.iter().map(|row| row.message.ordering_key.clone()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(texts(rows, |m| &m.exchange))
    .bind::<Array<Text>, _>(texts(rows, |m| &m.routing_key))
    .bind::<Array<Text>, _>(texts(rows, |m| &m.content_type))
    .bind::<Array<Text>, _>(rows.iter().map(|row| row.message.headers.to_json()).collect::<Vec<_>>())
    .bind::<Array<Binary>, _>(rows.iter().map(|row| row.message.payload.to_vec()).collect::<Vec<_>>())
    .bind::<Array<Nullable<BigInt>>, _>(rows.iter().map(|row| micros(row).0).collect::<Vec<_>>())
    .bind::<Array<Nullable<BigInt>>, _>(rows.iter().map(|row| micros(row).1).collect::<Vec<_>>())
}
