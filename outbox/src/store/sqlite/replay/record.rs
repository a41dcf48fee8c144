use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel::sqlite::SqliteConnection;
use serde_json::json;

use crate::admin::{AdminError, Order};
use crate::replay::{Fenced, NewReplay, ReplayEnd, ReplayInfo, ReplayJob, ReplayPlan};
use crate::row::micros;
use crate::store::replay_row::{Row, Standing, startable};
use crate::store::sqlite::admin::audit::record;
use crate::store::sqlite::cursor::now;

macro_rules! columns {
    () => {
        concat!(
            "id, consumer, queue, forced, selection, rate, first_kept, total, sent, unsendable, position, last_seq, state,
             last_error, owner, epoch, actor, role, reason, started_at, updated_at, finished_at, lease_until - ",
            now!(),
            " AS remaining"
        )
    };
}

/// Records a replay with its audit entry, in the hands of `owner`.
pub(crate) fn start_replay(
    conn: &mut SqliteConnection,
    new: &NewReplay,
    plan: &ReplayPlan,
    owner: &str,
    ttl: Duration,
    order: &Order,
) -> Result<ReplayJob, AdminError> {
    let ((first, last), first_kept) = startable(new, plan)?;
    order.check()?;
    conn.immediate_transaction(|conn| {
        let row: Row = diesel::sql_query(concat!(
            "INSERT INTO outbox_replays (consumer, queue, forced, selection, rate, first_kept, total, position, last_seq,
                                         owner, lease_until, actor, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,
                     ", now!(), " + ?11, ?12, ?13)
             RETURNING ",
            columns!()
        ))
        .bind::<Text, _>(&new.consumer)
        .bind::<Text, _>(&new.queue)
        .bind::<Bool, _>(new.forced)
        .bind::<Text, _>(new.selection.to_json())
        .bind::<BigInt, _>(i64::from(new.rate))
        .bind::<BigInt, _>(first_kept)
        .bind::<BigInt, _>(plan.total.cast_signed())
        .bind::<BigInt, _>(first - 1)
        .bind::<BigInt, _>(last)
        .bind::<Text, _>(owner)
        .bind::<BigInt, _>(micros(ttl))
        .bind::<Text, _>(&order.actor)
        .bind::<Text, _>(&order.reason)
        .get_result(conn)?;
        let job = row.job(ttl)?;
        let detail = json!({
            "replay": job.id, "consumer": job.consumer, "queue": job.queue, "forced": job.forced,
            "rate": job.rate, "total": job.total, "selection": job.selection,
        });
        record(conn, order, "replay.start", None, &detail.to_string())?;
        Ok(job)
    })
}

/// Takes up a replay that nobody works on and that is not over.
pub(crate) fn resume_replay(
    conn: &mut SqliteConnection,
    id: i64,
    owner: &str,
    ttl: Duration,
    order: &Order,
) -> Result<ReplayJob, AdminError> {
    order.check()?;
    conn.immediate_transaction(|conn| {
        // Of two at once the second waits for the row, and then finds the lease taken.
        let taken: Option<Row> = diesel::sql_query(concat!(
            "UPDATE outbox_replays SET owner = ?2, epoch = epoch + 1, state = 'running', last_error = '',
                    lease_until = ", now!(), " + ?3,
                    updated_at = ", now!(), ", finished_at = NULL
             WHERE id = ?1 AND state IN ('running', 'failed') AND (lease_until IS NULL OR lease_until <= ", now!(), ")
             RETURNING ",
            columns!()
        ))
        .bind::<BigInt, _>(id)
        .bind::<Text, _>(owner)
        .bind::<BigInt, _>(micros(ttl))
        .get_result(conn)
        .optional()?;
        let Some(taken) = taken else {
            return Err(look(conn, id)?.ok_or(AdminError::UnknownReplay { id })?.refusal());
        };
        let job = taken.job(ttl)?;
        let detail = json!({ "replay": id, "position": job.position, "sent": job.sent });
        record(conn, order, "replay.resume", None, &detail.to_string())?;
        Ok(job)
    })
}

/// Moves the position and renews the lease, fenced by the epoch. With totals, so that one whose answer was
/// lost can be written again.
pub(crate) fn advance_replay(
    conn: &mut SqliteConnection,
    job: &ReplayJob,
    position: i64,
    sent: u64,
    unsendable: u64,
) -> QueryResult<Fenced> {
    let rows = diesel::sql_query(concat!(
        "UPDATE outbox_replays SET position = ?3, sent = ?4, unsendable = ?5,
                lease_until = ",
        now!(),
        " + ?6, updated_at = ",
        now!(),
        "
         WHERE id = ?1 AND epoch = ?2 AND state = 'running'"
    ))
    .bind::<BigInt, _>(job.id)
    .bind::<BigInt, _>(job.epoch)
    .bind::<BigInt, _>(position)
    .bind::<BigInt, _>(sent.cast_signed())
    .bind::<BigInt, _>(unsendable.cast_signed())
    .bind::<BigInt, _>(micros(job.ttl))
    .execute(conn)?;
    fenced(conn, rows, job)
}

/// Ends the work on a replay, fenced by the epoch.
pub(crate) fn end_replay(
    conn: &mut SqliteConnection,
    job: &ReplayJob,
    end: &ReplayEnd,
) -> QueryResult<Fenced> {
    let (state, error) = match end {
        ReplayEnd::Done => ("done", ""),
        ReplayEnd::Failed(error) => ("failed", &error[..]),
        ReplayEnd::Stopped => ("running", ""),
    };
    let rows = diesel::sql_query(concat!(
        "UPDATE outbox_replays SET state = ?3, last_error = ?4, owner = NULL, lease_until = NULL,
                updated_at = ",
        now!(),
        ", finished_at = CASE WHEN ?3 <> 'running' THEN ",
        now!(),
        " END
         WHERE id = ?1 AND epoch = ?2 AND state = 'running'"
    ))
    .bind::<BigInt, _>(job.id)
    .bind::<BigInt, _>(job.epoch)
    .bind::<Text, _>(state)
    .bind::<Text, _>(error)
    .execute(conn)?;
    fenced(conn, rows, job)
}

/// Gives a replay up for good.
pub(crate) fn cancel_replay(
    conn: &mut SqliteConnection,
    id: i64,
    order: &Order,
) -> Result<(), AdminError> {
    order.check()?;
    conn.immediate_transaction(|conn| {
        let found: Option<Row> = diesel::sql_query(concat!(
            "SELECT ",
            columns!(),
            " FROM outbox_replays WHERE id = ?1 AND state IN ('running', 'failed')"
        ))
        .bind::<BigInt, _>(id)
        .get_result(conn)
        .optional()?;
        let Some(found) = found else {
            return Err(look(conn, id)?.ok_or(AdminError::UnknownReplay { id })?.refusal());
        };
        if order.dry_run {
            return Ok(());
        }
        diesel::sql_query(concat!(
            "UPDATE outbox_replays SET state = 'cancelled', owner = NULL, lease_until = NULL,
                    updated_at = ",
            now!(),
            ", finished_at = ",
            now!(),
            " WHERE id = ?1"
        ))
        .bind::<BigInt, _>(id)
        .execute(conn)?;
        let info = found.info()?;
        let detail = json!({ "replay": id, "sent": info.sent, "total": info.total });
        record(conn, order, "replay.cancel", None, &detail.to_string())
    })
}

/// The last replays, newest first.
pub(crate) fn replays(conn: &mut SqliteConnection, limit: u32) -> QueryResult<Vec<ReplayInfo>> {
    let rows: Vec<Row> = diesel::sql_query(concat!(
        "SELECT ",
        columns!(),
        " FROM outbox_replays ORDER BY id DESC LIMIT ?1"
    ))
    .bind::<BigInt, _>(i64::from(limit))
    .load(conn)?;
    rows.into_iter().map(Row::info).collect()
}

/// One replay.
pub(crate) fn replay(conn: &mut SqliteConnection, id: i64) -> Result<ReplayInfo, AdminError> {
    let row = look(conn, id)?.ok_or(AdminError::UnknownReplay { id })?;
    Ok(row.info()?)
}

fn look(conn: &mut SqliteConnection, id: i64) -> QueryResult<Option<Row>> {
    diesel::sql_query(concat!("SELECT ", columns!(), " FROM outbox_replays WHERE id = ?1"))
        .bind::<BigInt, _>(id)
        .get_result(conn)
        .optional()
}

fn fenced(conn: &mut SqliteConnection, rows: usize, job: &ReplayJob) -> QueryResult<Fenced> {
    if rows > 0 {
        return Ok(Fenced::Done);
    }
    let found = diesel::sql_query("SELECT state, epoch FROM outbox_replays WHERE id = ?1")
        .bind::<BigInt, _>(job.id)
        .get_result(conn)
        .optional()?;
    Ok(Standing::fenced(found, job))
}
