use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Text};
use serde_json::json;

use super::audit::record;
use crate::admin::{AdminError, CursorInfo, Holder, Identity, NewCursor, Order, Paused, Start};
use crate::reader::Filter;
use crate::row::time_of;

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = Nullable<Text>)]
    owner: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    remaining: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    advanced_at: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    created_at: Option<i64>,
    #[diesel(sql_type = Nullable<Array<Text>>)]
    kinds: Option<Vec<String>>,
    #[diesel(sql_type = Nullable<Array<Text>>)]
    exchanges: Option<Vec<String>>,
    #[diesel(sql_type = Nullable<BigInt>)]
    paused_at: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    pause_reason: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    system_id: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    timeline: Option<i64>,
}

#[derive(QueryableByName)]
struct Lock {
    #[diesel(sql_type = Nullable<Text>)]
    owner: Option<String>,
    #[diesel(sql_type = BigInt)]
    remaining: i64,
    #[diesel(sql_type = BigInt)]
    paused: i64,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Every cursor, by name.
pub(crate) fn cursors(conn: &mut PgConnection) -> QueryResult<Vec<CursorInfo>> {
    let rows: Vec<Row> = diesel::sql_query(
        "SELECT name, seq, epoch, owner, kinds, exchanges, pause_reason, system_id, timeline,
                (extract(epoch FROM lease_until - clock_timestamp()) * 1000000)::bigint AS remaining,
                (extract(epoch FROM advanced_at) * 1000000)::bigint AS advanced_at,
                (extract(epoch FROM created_at) * 1000000)::bigint AS created_at,
                (extract(epoch FROM paused_at) * 1000000)::bigint AS paused_at
         FROM outbox_cursors ORDER BY name",
    )
    .load(conn)?;
    Ok(rows.into_iter().map(info).collect())
}

fn info(row: Row) -> CursorInfo {
    let remaining = row.remaining.filter(|left| *left > 0);
    let remaining = remaining.map(|left| Duration::from_micros(left.unsigned_abs()));
    CursorInfo {
        name: row.name,
        seq: row.seq,
        epoch: row.epoch,
        holder: row.owner.map(|owner| Holder { owner, remaining }),
        advanced_at: row.advanced_at.map(time_of),
        created_at: row.created_at.map(time_of),
        filter: Filter { kinds: row.kinds, exchanges: row.exchanges },
        paused: row
            .paused_at
            .zip(row.pause_reason)
            .map(|(since, reason)| Paused { since: time_of(since), reason }),
        identity: row
            .system_id
            .zip(row.timeline)
            .map(|(system_id, timeline)| Identity { system_id, timeline }),
    }
}

/// Makes a cursor. One that starts now gets the snapshot and the sequence's last value of one
/// statement: a row that is being written has no place in that snapshot, and is late or fresh. With
/// the cluster whose numbers they are.
pub(crate) fn add_cursor(
    conn: &mut PgConnection,
    new: &NewCursor,
    order: &Order,
) -> Result<(), AdminError> {
    new.check()?;
    order.check()?;
    conn.transaction(|conn| {
        let there: Count =
            diesel::sql_query("SELECT count(*) AS count FROM outbox_cursors WHERE name = $1")
                .bind::<Text, _>(&new.name)
                .get_result(conn)?;
        if there.count > 0 {
            return Err(AdminError::CursorExists { cursor: new.name.clone() });
        }
        if order.dry_run {
            return Ok(());
        }
        let made = diesel::sql_query(match new.start {
            Start::Beginning => {
                "INSERT INTO outbox_cursors (name, kinds, exchanges) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
            }
            Start::Now => {
                "INSERT INTO outbox_cursors (name, kinds, exchanges, seq, snapshot, system_id, timeline)
                 SELECT $1, $2, $3, (SELECT last_value FROM outbox_messages_seq_seq), pg_current_snapshot(),
                        (SELECT system_identifier::text FROM pg_control_system()),
                        ('x' || lpad(left(pg_walfile_name(pg_current_wal_lsn()), 8), 16, '0'))::bit(64)::bigint
                 ON CONFLICT DO NOTHING"
            }
        })
        .bind::<Text, _>(&new.name)
        .bind::<Nullable<Array<Text>>, _>(&new.filter.kinds)
        .bind::<Nullable<Array<Text>>, _>(&new.filter.exchanges)
        .execute(conn)?;
        if made == 0 {
            return Err(AdminError::CursorExists { cursor: new.name.clone() });
        }
        let detail = json!({
            "start": match new.start { Start::Beginning => "beginning", Start::Now => "now" },
            "kinds": new.filter.kinds, "exchanges": new.filter.exchanges,
        });
        record(conn, order, "cursors.add", Some(&new.name), &detail.to_string())
    })
}

/// Removes a cursor; its holds go with it.
pub(crate) fn retire_cursor(
    conn: &mut PgConnection,
    cursor: &str,
    force: bool,
    order: &Order,
) -> Result<u64, AdminError> {
    order.check()?;
    conn.transaction(|conn| {
        let lock = lock(conn, cursor)?;
        if let (Some(owner), true, false) = (lock.owner, lock.remaining > 0, force) {
            let remaining = Duration::from_micros(lock.remaining.unsigned_abs());
            return Err(AdminError::CursorHeld { cursor: cursor.to_owned(), owner, remaining });
        }
        let held: Count =
            diesel::sql_query("SELECT count(*) AS count FROM outbox_holds WHERE cursor = $1")
                .bind::<Text, _>(cursor)
                .get_result(conn)?;
        if !order.dry_run {
            diesel::sql_query("DELETE FROM outbox_cursors WHERE name = $1")
                .bind::<Text, _>(cursor)
                .execute(conn)?;
            let detail = json!({ "holds": held.count, "forced": force });
            record(conn, order, "cursors.retire", Some(cursor), &detail.to_string())?;
        }
        Ok(held.count.max(0).unsigned_abs())
    })
}

/// Pauses a cursor.
pub(crate) fn pause(
    conn: &mut PgConnection,
    cursor: &str,
    order: &Order,
) -> Result<(), AdminError> {
    order.check()?;
    conn.transaction(|conn| {
        lock(conn, cursor)?;
        if order.dry_run {
            return Ok(());
        }
        diesel::sql_query(
            "UPDATE outbox_cursors SET paused_at = coalesce(paused_at, clock_timestamp()), pause_reason = $2 WHERE name = $1",
        )
        .bind::<Text, _>(cursor)
        .bind::<Text, _>(&order.reason)
        .execute(conn)?;
        record(conn, order, "pause", Some(cursor), "{}")
    })
}

/// Ends a pause.
pub(crate) fn resume(
    conn: &mut PgConnection,
    cursor: &str,
    order: &Order,
) -> Result<bool, AdminError> {
    order.check()?;
    conn.transaction(|conn| {
        let paused = lock(conn, cursor)?.paused > 0;
        if order.dry_run || !paused {
            return Ok(paused);
        }
        diesel::sql_query(
            "UPDATE outbox_cursors SET paused_at = NULL, pause_reason = NULL WHERE name = $1",
        )
        .bind::<Text, _>(cursor)
        .execute(conn)?;
        record(conn, order, "resume", Some(cursor), "{}")?;
        Ok(true)
    })
}

/// Locks the cursor's row for the rest of the transaction.
fn lock(conn: &mut PgConnection, cursor: &str) -> Result<Lock, AdminError> {
    let found: Option<Lock> = diesel::sql_query(
        "SELECT owner, coalesce((extract(epoch FROM lease_until - clock_timestamp()) * 1000000)::bigint, 0) AS remaining,
                (paused_at IS NOT NULL)::int::bigint AS paused
         FROM outbox_cursors WHERE name = $1 FOR UPDATE",
    )
    .bind::<Text, _>(cursor)
    .get_result(conn)
    .optional()?;
    found.ok_or_else(|| AdminError::UnknownCursor { cursor: cursor.to_owned() })
}
