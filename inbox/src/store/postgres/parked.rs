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

/// Parks a delivery, or counts it where the same one is parked already; returns the row's number. What
/// waits for a person or for its next attempt goes on waiting, unless a person has to decide now.
pub(crate) fn park<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    parked: &NewParked<'_>,
) -> QueryResult<i64> {
    Statement::<19, BigInt>::new(
        "INSERT INTO inbox_parked (consumer, reason, detail, attempts, digest, message_id, kind, scope, operation,
                                   exchange, routing_key, headers, content_type, payload,
                                   ordering_key, state, not_before, early_since, made_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS jsonb), ?, ?,
                 ?, ?, clock_timestamp() + CAST(? AS bigint) * interval '1 microsecond',
                 CASE WHEN ? = 'early' THEN clock_timestamp() END,
                 timestamptz 'epoch' + CAST(? AS bigint) * interval '1 microsecond')
         ON CONFLICT (consumer, digest) DO UPDATE SET
             deliveries = inbox_parked.deliveries + 1,
             last_parked_at = clock_timestamp(),
             attempts = greatest(inbox_parked.attempts, excluded.attempts),
             epoch = inbox_parked.epoch + CASE WHEN excluded.state = 'review' THEN 1 ELSE 0 END,
             scope = excluded.scope,
             operation = excluded.operation,
             reason = CASE WHEN excluded.state <> 'review' AND inbox_parked.state <> 'behind'
                 THEN inbox_parked.reason ELSE excluded.reason END,
             detail = CASE WHEN excluded.state <> 'review' AND inbox_parked.state <> 'behind'
                 THEN inbox_parked.detail ELSE excluded.detail END,
             state = CASE WHEN excluded.state <> 'review' AND inbox_parked.state <> 'behind'
                 THEN inbox_parked.state ELSE excluded.state END,
             not_before = CASE WHEN excluded.state <> 'review' AND inbox_parked.state <> 'behind'
                 THEN inbox_parked.not_before ELSE excluded.not_before END
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
            Bind::MaybeText(parked.ordering_key.as_deref()),
            Bind::Text(parked.next.as_str()),
            Bind::MaybeBigInt(parked.next.after_micros()),
            Bind::Text(parked.reason.as_str()),
            Bind::MaybeBigInt(parked.made_at),
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
        (BigInt, BigInt, Nullable<BigInt>),
        (Text, Nullable<Text>),
    );
    type Values = (
        (i64, String, String, i32, i64),
        (Option<String>, Option<String>, Option<String>, Option<String>),
        (String, String, String, Option<String>, Vec<u8>),
        (i64, i64, Option<i64>),
        (String, Option<String>),
    );
    let rows: Vec<Values> = Statement::<3, Columns>::new(
        "SELECT id, reason, detail, attempts, deliveries, message_id, kind, scope, operation,
                exchange, routing_key, CAST(headers AS text), content_type, payload,
                CAST(extract(epoch FROM parked_at) * 1000000 AS bigint),
                CAST(extract(epoch FROM last_parked_at) * 1000000 AS bigint),
                CAST(extract(epoch FROM not_before) * 1000000 AS bigint), state, ordering_key
         FROM inbox_parked WHERE consumer = ? AND id > ? ORDER BY id LIMIT ?",
        [Bind::Text(consumer.0), Bind::BigInt(after), Bind::BigInt(limit)],
    )
    .load(conn)?;
    rows.into_iter()
        .map(|(about, names, message, times, next)| parked_row(about, names, message, times, next))
        .collect()
}
