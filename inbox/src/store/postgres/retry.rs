use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::sql_types::{BigInt, Binary, Bool, Integer, Nullable, Text};
use diesel::{QueryResult, RunQueryDsl};

use crate::Consumer;
use crate::park::{detail, stored};
use crate::parking::Parking;
use crate::store::retry::{Due, Lease, Start, due};
use crate::store::statement::{Bind, Statement};

/// Takes parked messages that are due, oldest first, for `lease` microseconds: a process that dies with
/// one leaves it to be taken again.
///
/// Each goes to one process only. Materialized: as a join the planner may run the choice once for each row
/// and take far more than `limit`. `statement_timestamp()`: a volatile bound would make the index useless.
pub(crate) fn take_due<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    lease: i64,
    limit: i64,
) -> QueryResult<Vec<Due>> {
    type Columns = (
        (BigInt, BigInt, Integer, Integer, BigInt, Bool),
        (Nullable<Text>, Nullable<Text>, Nullable<Text>, Nullable<Text>, Nullable<Text>),
        (Text, Text, Text, Nullable<Text>, Binary, Nullable<BigInt>),
    );
    let rows = Statement::<3, Columns>::new(
        "WITH due AS MATERIALIZED (
             SELECT id FROM inbox_parked
             WHERE consumer = ? AND state = 'retry' AND not_before <= statement_timestamp()
             ORDER BY not_before, id LIMIT ? FOR NO KEY UPDATE SKIP LOCKED)
         UPDATE inbox_parked SET epoch = epoch + 1,
                not_before = clock_timestamp() + CAST(? AS bigint) * interval '1 microsecond'
         WHERE id = ANY (ARRAY(SELECT id FROM due))
         RETURNING id, epoch, starts, attempts,
                   coalesce(CAST(extract(epoch FROM clock_timestamp() - early_since) * 1000000 AS bigint), 0), forced,
                   message_id, kind, ordering_key, scope, operation,
                   exchange, routing_key, CAST(headers AS text), content_type, payload,
                   CAST(extract(epoch FROM made_at) * 1000000 AS bigint)",
        [Bind::Text(consumer.0), Bind::BigInt(limit), Bind::BigInt(lease)],
    )
    .load(conn)?;
    rows.into_iter().map(|(about, names, content)| due(about, names, content)).collect()
}

/// Notes that a parked message is about to be begun, under a lease that begins now; false where somebody
/// else has taken or decided about it.
pub(crate) fn begin<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    lease: &Lease,
    length: i64,
) -> QueryResult<bool> {
    Statement::<3>::new(
        "UPDATE inbox_parked SET starts = starts + 1,
                not_before = clock_timestamp() + CAST(? AS bigint) * interval '1 microsecond'
         WHERE id = ? AND epoch = ? AND state = 'retry'",
        [Bind::BigInt(length), Bind::BigInt(lease.id), Bind::BigInt(lease.epoch)],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Makes the lease of a message that is being worked on last longer; false as for [`begin`].
pub(crate) fn renew<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    lease: &Lease,
    length: i64,
) -> QueryResult<bool> {
    Statement::<3>::new(
        "UPDATE inbox_parked SET not_before = clock_timestamp() + CAST(? AS bigint) * interval '1 microsecond'
         WHERE id = ? AND epoch = ? AND state = 'retry'",
        [Bind::BigInt(length), Bind::BigInt(lease.id), Bind::BigInt(lease.epoch)],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Forgets a message that has been applied; false where somebody else has taken or decided about it.
pub(crate) fn resolve<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    lease: &Lease,
) -> QueryResult<bool> {
    Statement::<2>::new(
        "DELETE FROM inbox_parked WHERE id = ? AND epoch = ?",
        [Bind::BigInt(lease.id), Bind::BigInt(lease.epoch)],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Parks a message again after its retry; false as for [`resolve`].
pub(crate) fn put_back<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    lease: &Lease,
    parking: &Parking,
) -> QueryResult<bool> {
    Statement::<8>::new(
        "UPDATE inbox_parked SET reason = ?, detail = ?, attempts = ?, state = ?, starts = 0,
                not_before = clock_timestamp() + CAST(? AS bigint) * interval '1 microsecond',
                early_since = CASE WHEN ? = 'early' THEN coalesce(early_since, clock_timestamp()) END,
                last_parked_at = clock_timestamp()
         WHERE id = ? AND epoch = ?",
        [
            Bind::Text(parking.reason.as_str()),
            Bind::Text(&detail(&parking.detail)),
            Bind::Integer(stored(parking.attempts)),
            Bind::Text(parking.next.as_str()),
            Bind::MaybeBigInt(parking.next.after_micros()),
            Bind::Text(parking.reason.as_str()),
            Bind::BigInt(lease.id),
            Bind::BigInt(lease.epoch),
        ],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Gives a message back that was taken, and begun if `begun`, and has not come to an end; it is due again
/// after `pause`.
pub(crate) fn untake<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    lease: &Lease,
    begun: bool,
    pause: i64,
) -> QueryResult<()> {
    Statement::<4>::new(
        "UPDATE inbox_parked SET starts = starts - ?,
                not_before = clock_timestamp() + CAST(? AS bigint) * interval '1 microsecond'
         WHERE id = ? AND epoch = ? AND state = 'retry'",
        [
            Bind::Integer(i32::from(begun)),
            Bind::BigInt(pause),
            Bind::BigInt(lease.id),
            Bind::BigInt(lease.epoch),
        ],
    )
    .execute(conn)
    .map(drop)
}

/// How often a redelivered message was begun without coming to an end; counts it where it is parked.
pub(crate) fn look<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    digest: &[u8],
) -> QueryResult<Start> {
    let parked = Statement::<2, (BigInt, Text)>::new(
        "UPDATE inbox_parked SET deliveries = deliveries + 1
         WHERE consumer = ? AND digest = ? RETURNING id, reason",
        [Bind::Text(consumer.0), Bind::Bytes(digest)],
    )
    .load::<(i64, String)>(conn)?;
    if let Some((id, reason)) = parked.into_iter().next() {
        return Start::parked(id, &reason);
    }
    Statement::<2, Integer>::new(
        "SELECT starts FROM inbox_starts WHERE consumer = ? AND digest = ?",
        [Bind::Text(consumer.0), Bind::Bytes(digest)],
    )
    .load::<i32>(conn)
    .map(|found| Start::Begun { starts: found.first().map_or(0, |starts| starts.unsigned_abs()) })
}

/// Notes that a redelivered message is about to be begun.
pub(crate) fn start<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    digest: &[u8],
) -> QueryResult<()> {
    Statement::<2>::new(
        "INSERT INTO inbox_starts (consumer, digest, starts) VALUES (?, ?, 1)
         ON CONFLICT (consumer, digest) DO UPDATE SET
             starts = inbox_starts.starts + 1, started_at = clock_timestamp()",
        [Bind::Text(consumer.0), Bind::Bytes(digest)],
    )
    .execute(conn)
    .map(drop)
}

/// Forgets the starts of a message that has come to its end.
pub(crate) fn finish<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    digest: &[u8],
) -> QueryResult<()> {
    Statement::<2>::new(
        "DELETE FROM inbox_starts WHERE consumer = ? AND digest = ?",
        [Bind::Text(consumer.0), Bind::Bytes(digest)],
    )
    .execute(conn)
    .map(drop)
}

/// Moves the times that count into the past.
pub(crate) fn pass_time<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    time: i64,
) -> QueryResult<()> {
    Statement::<3>::new(
        "UPDATE inbox_parked SET not_before = not_before - CAST(? AS bigint) * interval '1 microsecond',
                early_since = early_since - CAST(? AS bigint) * interval '1 microsecond'
         WHERE consumer = ?",
        [Bind::BigInt(time), Bind::BigInt(time), Bind::Text(consumer.0)],
    )
    .execute(conn)
    .map(drop)
}
