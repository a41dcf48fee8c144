use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};

use crate::reader::{Advance, Claim, Hold, Late, Lease, Position};
use crate::row::micros;
use crate::store::postgres::holds;

#[derive(QueryableByName)]
struct Taken {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    snapshot: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    late_seq: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    late_snapshot: Option<String>,
}

#[derive(QueryableByName)]
struct Busy {
    #[diesel(sql_type = Nullable<Text>)]
    owner: Option<String>,
    #[diesel(sql_type = BigInt)]
    remaining: i64,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Takes the lease of a cursor if it is free, expired or the owner's own.
pub(crate) fn claim(
    conn: &mut PgConnection,
    cursor: &str,
    owner: &str,
    ttl: Duration,
) -> QueryResult<Claim> {
    // The snapshot of a new cursor is of no consequence while its seq is 0: every row is fresh.
    diesel::sql_query("INSERT INTO outbox_cursors (name) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind::<Text, _>(cursor)
        .execute(conn)?;
    let taken: Option<Taken> = diesel::sql_query(
        "UPDATE outbox_cursors
         SET owner = $2, epoch = epoch + 1,
             lease_until = clock_timestamp() + $3 * interval '1 microsecond'
         WHERE name = $1 AND (owner IS NULL OR owner = $2 OR lease_until <= clock_timestamp())
         RETURNING epoch, seq, snapshot::text, late_seq, late_snapshot::text",
    )
    .bind::<Text, _>(cursor)
    .bind::<Text, _>(owner)
    .bind::<BigInt, _>(micros(ttl))
    .get_result(conn)
    .optional()?;
    if let Some(taken) = taken {
        let late =
            taken.late_seq.zip(taken.late_snapshot).map(|(seq, snapshot)| Late { seq, snapshot });
        let lease = Lease { cursor: cursor.to_owned(), epoch: taken.epoch, ttl };
        return Ok(Claim::Taken(
            lease,
            Position { seq: taken.seq, snapshot: taken.snapshot, late },
        ));
    }
    let busy: Busy = diesel::sql_query(
        "SELECT owner, coalesce((extract(epoch FROM lease_until - clock_timestamp()) * 1000000)::bigint, 0) AS remaining
         FROM outbox_cursors WHERE name = $1",
    )
    .bind::<Text, _>(cursor)
    .get_result(conn)?;
    Ok(Claim::Busy {
        owner: busy.owner.unwrap_or_default(),
        remaining: Duration::from_micros(busy.remaining.max(0).unsigned_abs()),
    })
}

/// Keeps the lease for another term.
pub(crate) fn renew(conn: &mut PgConnection, lease: &Lease) -> QueryResult<Advance> {
    let rows = diesel::sql_query(
        "UPDATE outbox_cursors SET lease_until = clock_timestamp() + $3 * interval '1 microsecond'
         WHERE name = $1 AND epoch = $2",
    )
    .bind::<Text, _>(&lease.cursor)
    .bind::<BigInt, _>(lease.epoch)
    .bind::<BigInt, _>(micros(lease.ttl))
    .execute(conn)?;
    Ok(Advance::of(rows))
}

/// Gives the lease up. The epoch stays, and with it the fence against this holder.
pub(crate) fn release(conn: &mut PgConnection, lease: &Lease) -> QueryResult<Advance> {
    let rows = diesel::sql_query(
        "UPDATE outbox_cursors SET owner = NULL, lease_until = NULL, epoch = epoch + 1
         WHERE name = $1 AND epoch = $2",
    )
    .bind::<Text, _>(&lease.cursor)
    .bind::<BigInt, _>(lease.epoch)
    .execute(conn)?;
    Ok(Advance::of(rows))
}

/// Moves the cursor and records what was held back, both or neither.
pub(crate) fn advance(
    conn: &mut PgConnection,
    lease: &Lease,
    to: &Position,
    holds: &[Hold],
) -> QueryResult<Advance> {
    if holds.is_empty() {
        return move_cursor(conn, lease, to);
    }
    conn.transaction(|conn| {
        // The cursor first: it takes the row lock and tells whether the lease is still ours.
        match move_cursor(conn, lease, to)? {
            Advance::LeaseLost => Ok(Advance::LeaseLost),
            Advance::Done => holds::insert(conn, &lease.cursor, holds).map(|()| Advance::Done),
        }
    })
}

/// How many messages are committed and not yet handed on.
pub(crate) fn pending(conn: &mut PgConnection, cursor: &str) -> QueryResult<i64> {
    let count: Count =
        diesel::sql_query("SELECT count(*) AS count FROM outbox_pending WHERE cursor = $1")
            .bind::<Text, _>(cursor)
            .get_result(conn)?;
    Ok(count.count)
}

fn move_cursor(conn: &mut PgConnection, lease: &Lease, to: &Position) -> QueryResult<Advance> {
    let rows = diesel::sql_query(
        "UPDATE outbox_cursors
         SET seq = $4, snapshot = $5::text::pg_snapshot, late_seq = $6, late_snapshot = $7::text::pg_snapshot,
             advanced_at = clock_timestamp(), lease_until = clock_timestamp() + $3 * interval '1 microsecond'
         WHERE name = $1 AND epoch = $2",
    )
    .bind::<Text, _>(&lease.cursor)
    .bind::<BigInt, _>(lease.epoch)
    .bind::<BigInt, _>(micros(lease.ttl))
    .bind::<BigInt, _>(to.seq)
    .bind::<Text, _>(&to.snapshot)
    .bind::<Nullable<BigInt>, _>(to.late.as_ref().map(|late| late.seq))
    .bind::<Nullable<Text>, _>(to.late.as_ref().map(|late| &late.snapshot))
    .execute(conn)?;
    Ok(Advance::of(rows))
}
