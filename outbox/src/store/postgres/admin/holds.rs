use std::time::Duration;

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{BoxedSqlQuery, SqlQuery};
use diesel::sql_types::{Array, BigInt, Nullable, Text};
use serde_json::json;

use super::audit::record;
use crate::admin::{AdminError, Changed, HeldMessage, HoldCount, HoldInfo, Order, Selection};
use crate::row::time_of;

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = BigInt)]
    attempts: i64,
    #[diesel(sql_type = BigInt)]
    not_before: i64,
    #[diesel(sql_type = BigInt)]
    held_for: i64,
    #[diesel(sql_type = Text)]
    last_error: String,
    #[diesel(sql_type = Nullable<Text>)]
    ordering_key: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    kind: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    operation: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    exchange: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    routing_key: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    created_at: Option<i64>,
}

#[derive(QueryableByName)]
struct Group {
    #[diesel(sql_type = Text)]
    cursor: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(QueryableByName)]
struct Tally {
    #[diesel(sql_type = BigInt)]
    fit: i64,
    #[diesel(sql_type = BigInt)]
    refused: i64,
}

/// The places of a [`Selection`], with a further condition.
macro_rules! picked {
    ($further:literal) => {
        concat!(
            "WITH picked AS (
                 SELECT h.seq, h.state, h.reason, h.attempts FROM outbox_holds h
                 WHERE h.cursor = $1 AND ($2::bigint[] IS NULL OR h.seq = ANY ($2)) AND ($3::text IS NULL OR h.state = $3)
                   AND ($4::text IS NULL OR h.reason = $4) AND ($5::text IS NULL OR h.ordering_key = $5) ",
            $further,
            " ORDER BY h.seq LIMIT $6) "
        )
    };
}

fn selecting<'a>(
    sql: &'static str,
    cursor: &'a str,
    which: &'a Selection,
) -> BoxedSqlQuery<'a, Pg, SqlQuery> {
    diesel::sql_query(sql)
        .into_boxed::<Pg>()
        .bind::<Text, _>(cursor)
        .bind::<Nullable<Array<BigInt>>, _>(&which.seqs)
        .bind::<Nullable<Text>, _>(&which.state)
        .bind::<Nullable<Text>, _>(&which.reason)
        .bind::<Nullable<Text>, _>(&which.key)
        .bind::<BigInt, _>(i64::from(which.limit))
}

/// Held messages, in order of `seq`.
pub(crate) fn holds(
    conn: &mut PgConnection,
    cursor: &str,
    which: &Selection,
) -> QueryResult<Vec<HoldInfo>> {
    let sql = concat!(
        picked!(""),
        "SELECT h.seq, h.state, h.reason, h.attempts::bigint AS attempts, h.last_error, h.ordering_key,
                (extract(epoch FROM h.not_before) * 1000000)::bigint AS not_before,
                (extract(epoch FROM clock_timestamp() - h.held_at) * 1000000)::bigint AS held_for,
                m.id::text AS id, m.kind, m.operation, m.exchange, coalesce(m.routing_key, m.kind) AS routing_key,
                (extract(epoch FROM m.created_at) * 1000000)::bigint AS created_at
         FROM picked JOIN outbox_holds h ON h.cursor = $1 AND h.seq = picked.seq
         LEFT JOIN outbox_messages m ON m.seq = h.seq ORDER BY h.seq"
    );
    let rows: Vec<Row> = selecting(sql, cursor, which).load(conn)?;
    Ok(rows.into_iter().map(info).collect())
}

fn info(row: Row) -> HoldInfo {
    let message = row.id.zip(row.kind).zip(row.operation).zip(row.exchange).zip(row.routing_key);
    let message = message.zip(row.created_at).map(
        |(((((id, kind), operation), exchange), routing_key), at)| HeldMessage {
            id,
            kind,
            operation,
            exchange,
            routing_key,
            created_at: time_of(at),
        },
    );
    HoldInfo {
        seq: row.seq,
        state: row.state,
        reason: row.reason,
        attempts: row.attempts,
        not_before: time_of(row.not_before),
        held_for: Duration::from_micros(row.held_for.max(0).unsigned_abs()),
        last_error: row.last_error,
        ordering_key: row.ordering_key,
        message,
    }
}

/// How many messages are held, by cursor, state and reason.
pub(crate) fn hold_counts(conn: &mut PgConnection) -> QueryResult<Vec<HoldCount>> {
    let groups: Vec<Group> = diesel::sql_query(
        "SELECT cursor, state, reason, count(*) AS count FROM outbox_holds
         GROUP BY cursor, state, reason ORDER BY cursor, state, reason",
    )
    .load(conn)?;
    Ok(groups
        .into_iter()
        .map(|Group { cursor, state, reason, count }| HoldCount { cursor, state, reason, count })
        .collect())
}

/// Gives dead messages all their attempts again. One that died without an attempt is no message: it
/// would only die again, or go out without what could not be read.
pub(crate) fn retry_holds(
    conn: &mut PgConnection,
    cursor: &str,
    which: &Selection,
    order: &Order,
) -> Result<Changed, AdminError> {
    let count = concat!(
        picked!("AND h.state = 'dead'"),
        "SELECT count(*) FILTER (WHERE sound) AS fit, count(*) FILTER (WHERE NOT sound) AS refused
         FROM (SELECT NOT (reason = 'poison' AND attempts = 0)
                      AND EXISTS (SELECT FROM outbox_messages m WHERE m.seq = picked.seq) AS sound FROM picked) AS each_one"
    );
    let change = concat!(
        picked!("AND h.state = 'dead'"),
        "UPDATE outbox_holds h SET state = 'waiting', attempts = 0, not_before = clock_timestamp()
         FROM picked WHERE h.cursor = $1 AND h.seq = picked.seq AND h.state = 'dead'
           AND NOT (h.reason = 'poison' AND h.attempts = 0)
           AND EXISTS (SELECT FROM outbox_messages m WHERE m.seq = h.seq)"
    );
    changed(conn, "holds.retry", count, change, cursor, which, order)
}

/// Tries waiting messages now.
pub(crate) fn try_holds_now(
    conn: &mut PgConnection,
    cursor: &str,
    which: &Selection,
    order: &Order,
) -> Result<Changed, AdminError> {
    let count = concat!(
        picked!(
            "AND h.state = 'waiting' AND h.reason <> 'behind' AND (h.reason <> 'delayed' OR $2 IS NOT NULL OR $4 = 'delayed')"
        ),
        "SELECT count(*) AS fit, 0::bigint AS refused FROM picked"
    );
    let change = concat!(
        picked!(
            "AND h.state = 'waiting' AND h.reason <> 'behind' AND (h.reason <> 'delayed' OR $2 IS NOT NULL OR $4 = 'delayed')"
        ),
        "UPDATE outbox_holds h SET not_before = clock_timestamp()
         FROM picked WHERE h.cursor = $1 AND h.seq = picked.seq AND h.state = 'waiting'"
    );
    changed(conn, "holds.try_now", count, change, cursor, which, order)
}

/// Gives dead messages up. Only dead ones: an attempt under way would write a waiting one again.
pub(crate) fn discard_holds(
    conn: &mut PgConnection,
    cursor: &str,
    which: &Selection,
    order: &Order,
) -> Result<Changed, AdminError> {
    let count = concat!(
        picked!("AND h.state = 'dead'"),
        "SELECT count(*) AS fit, 0::bigint AS refused FROM picked"
    );
    let change = concat!(
        picked!("AND h.state = 'dead'"),
        "DELETE FROM outbox_holds h USING picked WHERE h.cursor = $1 AND h.seq = picked.seq AND h.state = 'dead'"
    );
    changed(conn, "holds.discard", count, change, cursor, which, order)
}

fn changed(
    conn: &mut PgConnection,
    action: &str,
    count: &'static str,
    change: &'static str,
    cursor: &str,
    which: &Selection,
    order: &Order,
) -> Result<Changed, AdminError> {
    order.check()?;
    conn.transaction(|conn| {
        // The lock that a relay's writes take first: the two cannot cross, nor deadlock over the rows.
        let known: Tally = diesel::sql_query(
            "SELECT count(*) AS fit, 0::bigint AS refused
             FROM (SELECT FROM outbox_cursors WHERE name = $1 FOR NO KEY UPDATE) c",
        )
        .bind::<Text, _>(cursor)
        .get_result(conn)?;
        if known.fit == 0 {
            return Err(AdminError::UnknownCursor { cursor: cursor.to_owned() });
        }
        let tally: Tally = selecting(count, cursor, which).get_result(conn)?;
        let refused = tally.refused.max(0).unsigned_abs();
        if order.dry_run {
            return Ok(Changed { changed: tally.fit.max(0).unsigned_abs(), refused });
        }
        let changed = selecting(change, cursor, which).execute(conn)? as u64;
        if changed > 0 {
            let detail = json!({
                "changed": changed, "refused": refused, "seqs": which.seqs, "reason": which.reason,
                "key": which.key, "limit": which.limit,
            });
            record(conn, order, action, Some(cursor), &detail.to_string())?;
        }
        Ok(Changed { changed, refused })
    })
}
