use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::sqlite::SqliteConnection;

use crate::reader::{Advance, Claim, Filter, Foreign, Hold, Lease, Position};
use crate::row::micros;
use crate::store::sqlite::holds;

#[derive(QueryableByName)]
struct Taken {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Nullable<Text>)]
    kinds: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    exchanges: Option<String>,
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

#[derive(QueryableByName)]
struct Pause {
    #[diesel(sql_type = Nullable<Text>)]
    pause_reason: Option<String>,
}

/// SQLite's own clock in microseconds: the database clock of this backend.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}
pub(super) use now;

/// Takes the lease of a cursor if it is free, expired or the owner's own.
pub(crate) fn claim(
    conn: &mut SqliteConnection,
    cursor: &str,
    owner: &str,
    ttl: Duration,
) -> QueryResult<Claim> {
    conn.immediate_transaction(|conn| {
        let taken: Option<Taken> = diesel::sql_query(concat!(
            "UPDATE outbox_cursors SET owner = ?2, epoch = epoch + 1, lease_until = ",
            now!(),
            " + ?3 WHERE name = ?1 AND (owner IS NULL OR owner = ?2 OR lease_until <= ",
            now!(),
            ") RETURNING epoch, seq, kinds, exchanges"
        ))
        .bind::<Text, _>(cursor)
        .bind::<Text, _>(owner)
        .bind::<BigInt, _>(micros(ttl))
        .get_result(conn)
        .optional()?;
        if let Some(taken) = taken {
            let filter = Filter { kinds: names(taken.kinds)?, exchanges: names(taken.exchanges)? };
            let lease = Lease {
                cursor: cursor.to_owned(),
                epoch: taken.epoch,
                ttl,
                filter,
                timeline: 0,
                promoted_from: None,
            };
            return Ok(Claim::Taken(
                lease,
                Position { seq: taken.seq, snapshot: String::new(), late: None },
            ));
        }
        let busy: Option<Busy> = diesel::sql_query(concat!(
            "SELECT owner, coalesce(lease_until - ",
            now!(),
            ", 0) AS remaining FROM outbox_cursors WHERE name = ?1"
        ))
        .bind::<Text, _>(cursor)
        .get_result(conn)
        .optional()?;
        let Some(busy) = busy else { return Ok(Claim::Unknown) };
        Ok(Claim::Busy {
            owner: busy.owner.unwrap_or_default(),
            remaining: Duration::from_micros(busy.remaining.max(0).unsigned_abs()),
        })
    })
}

/// A list of names as the columns of a cursor hold it.
fn names(stored: Option<String>) -> QueryResult<Option<Vec<String>>> {
    let read = |text: String| serde_json::from_str(&text);
    let names = stored.map(read).transpose();
    names.map_err(|error| diesel::result::Error::DeserializationError(error.into()))
}

/// Never: a place means the same in every copy of the file.
pub(crate) fn foreign(_conn: &mut SqliteConnection, _name: &str) -> QueryResult<Option<Foreign>> {
    Ok(None)
}

/// Keeps the lease for another term.
pub(crate) fn renew(conn: &mut SqliteConnection, lease: &Lease) -> QueryResult<Advance> {
    let rows = diesel::sql_query(concat!(
        "UPDATE outbox_cursors SET lease_until = ",
        now!(),
        " + ?3 WHERE name = ?1 AND epoch = ?2"
    ))
    .bind::<Text, _>(&lease.cursor)
    .bind::<BigInt, _>(lease.epoch)
    .bind::<BigInt, _>(micros(lease.ttl))
    .execute(conn)?;
    Ok(Advance::of(rows))
}

/// Gives the lease up. The epoch stays, and with it the fence against this holder.
pub(crate) fn release(conn: &mut SqliteConnection, lease: &Lease) -> QueryResult<Advance> {
    let rows = diesel::sql_query(
        "UPDATE outbox_cursors SET owner = NULL, lease_until = NULL, epoch = epoch + 1
         WHERE name = ?1 AND epoch = ?2",
    )
    .bind::<Text, _>(&lease.cursor)
    .bind::<BigInt, _>(lease.epoch)
    .execute(conn)?;
    Ok(Advance::of(rows))
}

/// Moves the cursor and records what was held back, both or neither.
pub(crate) fn advance(
    conn: &mut SqliteConnection,
    lease: &Lease,
    to: &Position,
    holds: &[Hold],
) -> QueryResult<Advance> {
    if holds.is_empty() {
        return move_cursor(conn, lease, to);
    }
    conn.immediate_transaction(|conn| match move_cursor(conn, lease, to)? {
        Advance::LeaseLost => Ok(Advance::LeaseLost),
        Advance::Done => holds::insert(conn, &lease.cursor, holds).map(|()| Advance::Done),
    })
}

/// Why an operator paused the cursor.
pub(crate) fn paused(conn: &mut SqliteConnection, cursor: &str) -> QueryResult<Option<String>> {
    let pause: Option<Pause> =
        diesel::sql_query("SELECT pause_reason FROM outbox_cursors WHERE name = ?1")
            .bind::<Text, _>(cursor)
            .get_result(conn)
            .optional()?;
    Ok(pause.and_then(|pause| pause.pause_reason))
}

/// How many messages are committed and not yet handed on.
pub(crate) fn pending(conn: &mut SqliteConnection, cursor: &str) -> QueryResult<i64> {
    let count: Count =
        diesel::sql_query("SELECT count(*) AS count FROM outbox_pending WHERE cursor = ?1")
            .bind::<Text, _>(cursor)
            .get_result(conn)?;
    Ok(count.count)
}

fn move_cursor(conn: &mut SqliteConnection, lease: &Lease, to: &Position) -> QueryResult<Advance> {
    let rows = diesel::sql_query(concat!(
        "UPDATE outbox_cursors SET seq = ?4, advanced_at = ",
        now!(),
        ", lease_until = ",
        now!(),
        " + ?3 WHERE name = ?1 AND epoch = ?2"
    ))
    .bind::<Text, _>(&lease.cursor)
    .bind::<BigInt, _>(lease.epoch)
    .bind::<BigInt, _>(micros(lease.ttl))
    .bind::<BigInt, _>(to.seq)
    .execute(conn)?;
    Ok(Advance::of(rows))
}
