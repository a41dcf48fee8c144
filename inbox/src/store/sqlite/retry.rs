use diesel::connection::LoadConnection;
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, RunQueryDsl};

use crate::Consumer;
use crate::park::{detail, stored};
use crate::parking::Parking;
use crate::store::retry::{Due, Lease, Start, due};
use crate::store::statement::{Bind, Statement};

/// Takes parked messages that are due, oldest first, for `lease` microseconds: a process that dies with
/// one leaves it to be taken again.
pub(crate) fn take_due<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    lease: i64,
    limit: i64,
) -> QueryResult<Vec<Due>> {
    type Columns = (
        (BigInt, BigInt, Integer, Integer, BigInt, Text),
        (Nullable<Text>, Nullable<Text>, Nullable<Text>),
        (Text, Text, Text, Nullable<Text>, Binary),
    );
    let rows = Statement::<3, Columns>::new(
        "UPDATE inbox_parked SET starts = starts + 1, epoch = epoch + 1,
                not_before = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?
         WHERE id IN (SELECT id FROM inbox_parked
                      WHERE consumer = ? AND state = 'retry' AND not_before <= CAST(unixepoch('subsec') * 1000000 AS INTEGER)
                      ORDER BY not_before, id LIMIT ?)
         RETURNING id, epoch, starts, attempts, CAST(unixepoch('subsec') * 1000000 AS INTEGER) - parked_at, reason,
                   message_id, kind, ordering_key,
                   exchange, routing_key, headers, content_type, payload",
        [Bind::BigInt(lease), Bind::Text(consumer.0), Bind::BigInt(limit)],
    )
    .load(conn)?;
    rows.into_iter().map(|(about, names, content)| due(about, names, content)).collect()
}

/// Forgets a message that has been applied; false where somebody else has taken or decided about it.
pub(crate) fn resolve<C: LoadConnection<Backend = Sqlite>>(
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
pub(crate) fn put_back<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    lease: &Lease,
    parking: &Parking,
) -> QueryResult<bool> {
    Statement::<7>::new(
        "UPDATE inbox_parked SET reason = ?, detail = ?, attempts = ?, state = ?, starts = 0,
                not_before = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ?,
                last_parked_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
         WHERE id = ? AND epoch = ?",
        [
            Bind::Text(parking.reason.as_str()),
            Bind::Text(&detail(&parking.detail)),
            Bind::Integer(stored(parking.attempts)),
            Bind::Text(parking.next.as_str()),
            Bind::MaybeBigInt(parking.next.after_micros()),
            Bind::BigInt(lease.id),
            Bind::BigInt(lease.epoch),
        ],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Gives a message back that was taken and not begun: it is due at once.
pub(crate) fn untake<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    lease: &Lease,
) -> QueryResult<()> {
    Statement::<2>::new(
        "UPDATE inbox_parked SET starts = 0, not_before = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
         WHERE id = ? AND epoch = ? AND state = 'retry'",
        [Bind::BigInt(lease.id), Bind::BigInt(lease.epoch)],
    )
    .execute(conn)
    .map(drop)
}

/// Notes that a redelivered message is about to be begun, and how often that was; counts it where it is
/// parked already instead.
pub(crate) fn start<C: LoadConnection<Backend = Sqlite>>(
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
        "INSERT INTO inbox_starts (consumer, digest, starts) VALUES (?, ?, 1)
         ON CONFLICT (consumer, digest) DO UPDATE SET
             starts = inbox_starts.starts + 1, started_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
         RETURNING starts",
        [Bind::Text(consumer.0), Bind::Bytes(digest)],
    )
    .get_result::<i32>(conn)
    .map(|starts| Start::Begun { starts: starts.unsigned_abs() })
}

/// Forgets the starts of a message that has come to its end.
pub(crate) fn finish<C: LoadConnection<Backend = Sqlite>>(
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

/// Moves what is parked into the past.
pub(crate) fn pass_time<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    time: i64,
) -> QueryResult<()> {
    Statement::<3>::new(
        "UPDATE inbox_parked SET not_before = not_before - ?,
                parked_at = parked_at - ?
         WHERE consumer = ?",
        [Bind::BigInt(time), Bind::BigInt(time), Bind::Text(consumer.0)],
    )
    .execute(conn)
    .map(drop)
}
