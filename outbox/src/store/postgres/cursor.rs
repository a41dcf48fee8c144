use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text};

use crate::reader::{Advance, Claim, Filter, Foreign, Hold, Late, Lease, Position};
use crate::row::micros;
use crate::store::postgres::holds;

/// The timeline this server writes: raised by each promotion of a standby. Not pg_control's, which
/// lags until the next checkpoint.
macro_rules! timeline {
    () => {
        "('x' || lpad(left(pg_walfile_name(pg_current_wal_lsn()), 8), 16, '0'))::bit(64)::bigint"
    };
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Nullable<Text>)]
    stored: Option<String>,
    #[diesel(sql_type = Text)]
    here: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    stored_timeline: Option<i64>,
    #[diesel(sql_type = Text)]
    snapshot: String,
    #[diesel(sql_type = Bool)]
    snapshot_ahead: bool,
    #[diesel(sql_type = Bool)]
    rows_ahead: bool,
}

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
    #[diesel(sql_type = BigInt)]
    timeline: i64,
    #[diesel(sql_type = Nullable<Array<Text>>)]
    kinds: Option<Vec<String>>,
    #[diesel(sql_type = Nullable<Array<Text>>)]
    exchanges: Option<Vec<String>>,
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

/// Takes the lease of a cursor if it is free, expired or the owner's own.
pub(crate) fn claim(
    conn: &mut PgConnection,
    cursor: &str,
    owner: &str,
    ttl: Duration,
) -> QueryResult<Claim> {
    let Some(found) = find(conn, cursor)? else { return Ok(Claim::Unknown) };
    if let Some(foreign) = found.foreign() {
        return Ok(Claim::Foreign(foreign));
    }
    // The identity again in the condition: the connection may lead elsewhere since the look.
    let taken: Option<Taken> = diesel::sql_query(concat!(
        "UPDATE outbox_cursors
         SET owner = $2, epoch = epoch + 1, lease_until = clock_timestamp() + $3 * interval '1 microsecond',
             system_id = $4, timeline = ",
        timeline!(),
        " WHERE name = $1 AND (owner IS NULL OR owner = $2 OR lease_until <= clock_timestamp())
            AND coalesce(system_id, $4) = (SELECT system_identifier::text FROM pg_control_system())
         RETURNING epoch, seq, snapshot::text, late_seq, late_snapshot::text, timeline, kinds, exchanges"
    ))
    .bind::<Text, _>(cursor)
    .bind::<Text, _>(owner)
    .bind::<BigInt, _>(micros(ttl))
    .bind::<Text, _>(&found.here)
    .get_result(conn)
    .optional()?;
    if let Some(taken) = taken {
        let late =
            taken.late_seq.zip(taken.late_snapshot).map(|(seq, snapshot)| Late { seq, snapshot });
        let lease = Lease {
            cursor: cursor.to_owned(),
            epoch: taken.epoch,
            ttl,
            filter: Filter { kinds: taken.kinds, exchanges: taken.exchanges },
            timeline: taken.timeline,
            promoted_from: found.stored_timeline.filter(|stored| *stored != taken.timeline),
        };
        let position = Position { seq: taken.seq, snapshot: taken.snapshot, late };
        return Ok(Claim::Taken(lease, position));
    }
    let busy: Option<Busy> = diesel::sql_query(
        "SELECT owner, coalesce((extract(epoch FROM lease_until - clock_timestamp()) * 1000000)::bigint, 0) AS remaining
         FROM outbox_cursors WHERE name = $1",
    )
    .bind::<Text, _>(cursor)
    .get_result(conn)
    .optional()?;
    // Retired between the statements.
    let Some(busy) = busy else { return Ok(Claim::Unknown) };
    Ok(Claim::Busy {
        owner: busy.owner.unwrap_or_default(),
        remaining: Duration::from_micros(busy.remaining.max(0).unsigned_abs()),
    })
}

fn find(conn: &mut PgConnection, cursor: &str) -> QueryResult<Option<Found>> {
    // Visible rows of transactions that have not begun cannot be this cluster's. Passing them would
    // hand them on again and again until its counter has caught up. The last one by the index, not
    // EXISTS: without statistics the planner expects one in the first rows, and reads all of the log.
    diesel::sql_query(
        "SELECT system_id AS stored, (SELECT system_identifier::text FROM pg_control_system()) AS here,
                timeline AS stored_timeline, coalesce(late_snapshot, snapshot)::text AS snapshot,
                greatest(pg_snapshot_xmax(snapshot), pg_snapshot_xmax(coalesce(late_snapshot, snapshot)))
                    > pg_snapshot_xmax(pg_current_snapshot()) AS snapshot_ahead,
                coalesce((SELECT xid FROM outbox_messages ORDER BY xid DESC LIMIT 1)
                             >= pg_snapshot_xmax(pg_current_snapshot()), false) AS rows_ahead
         FROM outbox_cursors WHERE name = $1",
    )
    .bind::<Text, _>(cursor)
    .get_result(conn)
    .optional()
}

impl Found {
    fn foreign(&self) -> Option<Foreign> {
        match &self.stored {
            Some(stored) if *stored != self.here => {
                let (stored, found) = (stored.clone(), self.here.clone());
                Some(Foreign::OtherCluster { stored, found })
            }
            _ if self.snapshot_ahead => {
                Some(Foreign::SnapshotAhead { snapshot: self.snapshot.clone() })
            }
            _ if self.rows_ahead => Some(Foreign::RowsAhead),
            _ => None,
        }
    }
}

/// How it shows that numbers are another cluster's.
pub(crate) fn foreign(conn: &mut PgConnection, name: &str) -> QueryResult<Option<Foreign>> {
    Ok(find(conn, name)?.and_then(|found| found.foreign()))
}

/// Keeps the lease for another term.
pub(crate) fn renew(conn: &mut PgConnection, lease: &Lease) -> QueryResult<Advance> {
    let rows = diesel::sql_query(concat!(
        "UPDATE outbox_cursors SET lease_until = clock_timestamp() + $3 * interval '1 microsecond'
         WHERE name = $1 AND epoch = $2 AND timeline = $4 AND $4 = ",
        timeline!()
    ))
    .bind::<Text, _>(&lease.cursor)
    .bind::<BigInt, _>(lease.epoch)
    .bind::<BigInt, _>(micros(lease.ttl))
    .bind::<BigInt, _>(lease.timeline)
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

/// Why an operator paused the cursor.
pub(crate) fn paused(conn: &mut PgConnection, cursor: &str) -> QueryResult<Option<String>> {
    let pause: Option<Pause> =
        diesel::sql_query("SELECT pause_reason FROM outbox_cursors WHERE name = $1")
            .bind::<Text, _>(cursor)
            .get_result(conn)
            .optional()?;
    Ok(pause.and_then(|pause| pause.pause_reason))
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
    let rows = diesel::sql_query(concat!(
        "UPDATE outbox_cursors
         SET seq = $4, snapshot = $5::text::pg_snapshot, late_seq = $6, late_snapshot = $7::text::pg_snapshot,
             advanced_at = clock_timestamp(), lease_until = clock_timestamp() + $3 * interval '1 microsecond'
         WHERE name = $1 AND epoch = $2 AND timeline = $8 AND $8 = ",
        timeline!()
    ))
    .bind::<Text, _>(&lease.cursor)
    .bind::<BigInt, _>(lease.epoch)
    .bind::<BigInt, _>(micros(lease.ttl))
    .bind::<BigInt, _>(to.seq)
    .bind::<Text, _>(&to.snapshot)
    .bind::<Nullable<BigInt>, _>(to.late.as_ref().map(|late| late.seq))
    .bind::<Nullable<Text>, _>(to.late.as_ref().map(|late| &late.snapshot))
    .bind::<BigInt, _>(lease.timeline)
    .execute(conn)?;
    Ok(Advance::of(rows))
}
