use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::sqlite::SqliteConnection;
use serde_json::json;

use super::super::cursor::now;
use super::audit::record;
use crate::admin::{AdminError, CursorInfo, Holder, NewCursor, Order, Paused, Start};
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
    #[diesel(sql_type = Nullable<Text>)]
    kinds: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    exchanges: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    paused_at: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    pause_reason: Option<String>,
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
pub(crate) fn cursors(conn: &mut SqliteConnection) -> QueryResult<Vec<CursorInfo>> {
    let rows: Vec<Row> = diesel::sql_query(concat!(
        "SELECT name, seq, epoch, owner, kinds, exchanges, pause_reason, lease_until - ",
        now!(),
        " AS remaining, advanced_at, created_at, paused_at FROM outbox_cursors ORDER BY name"
    ))
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
        filter: Filter {
            kinds: row.kinds.and_then(names),
            exchanges: row.exchanges.and_then(names),
        },
        paused: row
            .paused_at
            .zip(row.pause_reason)
            .map(|(since, reason)| Paused { since: time_of(since), reason }),
        identity: None,
    }
}

/// The CHECK allows nothing but an array; elements that are no text match no message.
fn names(json: String) -> Option<Vec<String>> {
    serde_json::from_str(&json).ok()
}

/// Makes a cursor. Nothing is being written meanwhile: there is one writer, and it is this.
pub(crate) fn add_cursor(
    conn: &mut SqliteConnection,
    new: &NewCursor,
    order: &Order,
) -> Result<(), AdminError> {
    new.check()?;
    order.check()?;
    conn.immediate_transaction(|conn| {
        let there: Count =
            diesel::sql_query("SELECT count(*) AS count FROM outbox_cursors WHERE name = ?1")
                .bind::<Text, _>(&new.name)
                .get_result(conn)?;
        if there.count > 0 {
            return Err(AdminError::CursorExists { cursor: new.name.clone() });
        }
        if order.dry_run {
            return Ok(());
        }
        let made = diesel::sql_query(match new.start {
            Start::Beginning => concat!(
                "INSERT INTO outbox_cursors (name, kinds, exchanges, created_at) VALUES (?1, ?2, ?3, ",
                now!(),
                ") ON CONFLICT DO NOTHING"
            ),
            // WHERE true: else ON would be read as part of a join.
            Start::Now => concat!(
                "INSERT INTO outbox_cursors (name, kinds, exchanges, created_at, seq) SELECT ?1, ?2, ?3, ",
                now!(),
                ", coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox_messages'), 0)
                 WHERE true ON CONFLICT DO NOTHING"
            ),
        })
        .bind::<Text, _>(&new.name)
        .bind::<Nullable<Text>, _>(new.filter.kinds.as_ref().map(|names| json!(names).to_string()))
        .bind::<Nullable<Text>, _>(new.filter.exchanges.as_ref().map(|names| json!(names).to_string()))
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
    conn: &mut SqliteConnection,
    cursor: &str,
    force: bool,
    order: &Order,
) -> Result<u64, AdminError> {
    order.check()?;
    conn.immediate_transaction(|conn| {
        let lock = lock(conn, cursor)?;
        if let (Some(owner), true, false) = (lock.owner, lock.remaining > 0, force) {
            let remaining = Duration::from_micros(lock.remaining.unsigned_abs());
            return Err(AdminError::CursorHeld { cursor: cursor.to_owned(), owner, remaining });
        }
        let held: Count =
            diesel::sql_query("SELECT count(*) AS count FROM outbox_holds WHERE cursor = ?1")
                .bind::<Text, _>(cursor)
                .get_result(conn)?;
        if !order.dry_run {
            diesel::sql_query("DELETE FROM outbox_cursors WHERE name = ?1")
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
    conn: &mut SqliteConnection,
    cursor: &str,
    order: &Order,
) -> Result<(), AdminError> {
    order.check()?;
    conn.immediate_transaction(|conn| {
        lock(conn, cursor)?;
        if order.dry_run {
            return Ok(());
        }
        diesel::sql_query(concat!(
            "UPDATE outbox_cursors SET paused_at = coalesce(paused_at, ",
            now!(),
            "), pause_reason = ?2 WHERE name = ?1"
        ))
        .bind::<Text, _>(cursor)
        .bind::<Text, _>(&order.reason)
        .execute(conn)?;
        record(conn, order, "pause", Some(cursor), "{}")
    })
}

/// Ends a pause.
pub(crate) fn resume(
    conn: &mut SqliteConnection,
    cursor: &str,
    order: &Order,
) -> Result<bool, AdminError> {
    order.check()?;
    conn.immediate_transaction(|conn| {
        let paused = lock(conn, cursor)?.paused > 0;
        if order.dry_run || !paused {
            return Ok(paused);
        }
        diesel::sql_query(
            "UPDATE outbox_cursors SET paused_at = NULL, pause_reason = NULL WHERE name = ?1",
        )
        .bind::<Text, _>(cursor)
        .execute(conn)?;
        record(conn, order, "resume", Some(cursor), "{}")?;
        Ok(true)
    })
}

/// Looks the cursor up inside a transaction that may write, which locks everything.
fn lock(conn: &mut SqliteConnection, cursor: &str) -> Result<Lock, AdminError> {
    let found: Option<Lock> = diesel::sql_query(concat!(
        "SELECT owner, coalesce(lease_until - ",
        now!(),
        ", 0) AS remaining, paused_at IS NOT NULL AS paused FROM outbox_cursors WHERE name = ?1"
    ))
    .bind::<Text, _>(cursor)
    .get_result(conn)
    .optional()?;
    found.ok_or_else(|| AdminError::UnknownCursor { cursor: cursor.to_owned() })
}
