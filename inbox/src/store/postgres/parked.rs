use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
use diesel::{QueryResult, RunQueryDsl};
use message::OperationKey;

use crate::Consumer;
use crate::park::NewParked;
use crate::store::Parked;
use crate::store::parked::parked_row;
use crate::store::statement::{Bind, Statement};

/// Parks a delivery, or counts it where the same one is parked already; returns the row's number.
pub(crate) fn park<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    parked: &NewParked<'_>,
) -> QueryResult<i64> {
    Statement::<14, BigInt>::new(
        "INSERT INTO inbox_parked (consumer, reason, detail, attempts, digest, message_id, kind, scope, operation,
                                   exchange, routing_key, headers, content_type, payload)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS jsonb), ?, ?)
         ON CONFLICT (consumer, digest) DO UPDATE SET
             deliveries = inbox_parked.deliveries + 1,
             last_parked_at = clock_timestamp(),
             reason = excluded.reason,
             detail = excluded.detail,
             attempts = excluded.attempts,
             scope = excluded.scope,
             operation = excluded.operation
         RETURNING id",
        [
            Bind::Text(parked.consumer.0),
            Bind::Text(parked.reason.as_str()),
            Bind::Text(&parked.detail),
            Bind::Integer(parked.attempts),
            Bind::Bytes(parked.digest.as_bytes()),
            Bind::MaybeText(parked.message_id.as_deref()),
            Bind::MaybeText(parked.kind.as_deref()),
            Bind::MaybeText(parked.operation.map(OperationKey::scope)),
            Bind::MaybeText(parked.operation.map(OperationKey::id)),
            Bind::Text(&parked.exchange),
            Bind::Text(&parked.routing_key),
            Bind::Text(&parked.headers),
            Bind::MaybeText(parked.content_type.as_deref()),
            Bind::Bytes(parked.payload),
        ],
    )
    .get_result(conn)
}

/// Parked deliveries with a greater number than `after`, in order of their numbers.
pub(crate) fn parked<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    after: i64,
    limit: i64,
) -> QueryResult<Vec<Parked>> {
    type Columns = (
        (BigInt, Text, Text, Integer, BigInt),
        (Nullable<Text>, Nullable<Text>, Nullable<Text>, Nullable<Text>),
        (Text, Text, Text, Nullable<Text>, Binary),
        (BigInt, BigInt),
    );
    type Values = (
        (i64, String, String, i32, i64),
        (Option<String>, Option<String>, Option<String>, Option<String>),
        (String, String, String, Option<String>, Vec<u8>),
        (i64, i64),
    );
    let rows: Vec<Values> = Statement::<3, Columns>::new(
        "SELECT id, reason, detail, attempts, deliveries, message_id, kind, scope, operation,
                exchange, routing_key, CAST(headers AS text), content_type, payload,
                CAST(extract(epoch FROM parked_at) * 1000000 AS bigint),
                CAST(extract(epoch FROM last_parked_at) * 1000000 AS bigint)
         FROM inbox_parked WHERE consumer = ? AND id > ? ORDER BY id LIMIT ?",
        [Bind::Text(consumer.0), Bind::BigInt(after), Bind::BigInt(limit)],
    )
    .load(conn)?;
    rows.into_iter()
        .map(|(about, names, message, times)| parked_row(about, names, message, times))
        .collect()
}
