//! Statements for PostgreSQL that diesel and diesel-async both run.

use diesel::pg::Pg;
use diesel::query_builder::{BoxedSqlQuery, SqlQuery};
use diesel::sql_types::{Array, BigInt, Binary, Nullable, Text, Uuid};
use message::Message;

use crate::row::{DeliverAfter, NewRow};

/// Waits for the ordering key's turn; the same lock as in the SQL function `outbox_enqueue`.
pub(crate) fn lock(ordering_key: &str) -> BoxedSqlQuery<'_, Pg, SqlQuery> {
    diesel::sql_query("SELECT pg_advisory_xact_lock(hashtextextended($1, 1131376460))")
        .into_boxed::<Pg>()
        .bind::<Text, _>(ordering_key)
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
