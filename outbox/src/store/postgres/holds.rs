use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Nullable, Text};

use super::cursor::renew;
use super::read::{Row, RowSql, columns, entry};
use crate::reader::{Advance, Due, Held, Hold, HoldReason, Lease, ReadLimit, Stored};

#[derive(QueryableByName)]
struct Key {
    #[diesel(sql_type = Text)]
    ordering_key: String,
}

/// Held messages whose time has come, at most one of each ordering key: the first one. A delayed
/// message waits for nobody and nobody waits for it.
pub(crate) fn due(
    conn: &mut PgConnection,
    cursor: &str,
    limit: ReadLimit,
) -> QueryResult<Vec<Due>> {
    let query = diesel::dsl::sql::<(Integer, Text, RowSql)>(concat!(
        "WITH picked AS (SELECT h.attempts, h.reason, h.not_before, m.seq, false AS late, ",
        columns!(),
        " FROM outbox_holds h JOIN outbox_messages m USING (seq) WHERE h.cursor = "
    ))
    .bind::<Text, _>(cursor)
    .sql(
        " AND h.state = 'waiting' AND h.not_before <= clock_timestamp()
             AND (h.reason = 'delayed' OR NOT EXISTS (
                 SELECT FROM outbox_holds e
                 WHERE e.cursor = h.cursor AND e.ordering_key = h.ordering_key AND e.seq < h.seq AND e.reason <> 'delayed'))
             ORDER BY h.not_before, h.seq LIMIT ",
    )
    .bind::<BigInt, _>(i64::from(limit.rows))
    .sql(
        "), sized AS (
             SELECT picked.*, sum(octet_length(payload) + 512) OVER w - (octet_length(payload) + 512) AS before
             FROM picked WINDOW w AS (ORDER BY not_before, seq ROWS UNBOUNDED PRECEDING)
         )
         SELECT r.attempts, r.reason, r.seq, r.late, false, r.id, r.kind, r.operation, r.ordering_key,
                r.exchange, r.routing_key, r.headers, r.content_type, r.payload, r.created_at
         FROM sized r WHERE r.before < ",
    )
    .bind::<BigInt, _>(limit.bytes.min(i64::MAX as u64).cast_signed())
    .sql(" ORDER BY r.not_before, r.seq");
    let rows: Vec<(i32, String, Row)> = query.load(conn)?;
    Ok(rows
        .into_iter()
        .map(|(attempts, reason, row)| Due {
            entry: entry(row),
            attempts: attempts.max(0).unsigned_abs(),
            // The CHECK allows no other; a reason of a newer release is as good as any refusal.
            reason: HoldReason::parse(&reason).unwrap_or(HoldReason::Refused),
        })
        .collect())
}

/// Records how another attempt at held messages ended.
pub(crate) fn settle(
    conn: &mut PgConnection,
    lease: &Lease,
    results: &[Held],
) -> QueryResult<Advance> {
    conn.transaction(|conn| {
        match renew(conn, lease)? {
            Advance::LeaseLost => return Ok(Advance::LeaseLost),
            Advance::Done => {}
        }
        for result in results {
            diesel::sql_query("DELETE FROM outbox_holds WHERE cursor = $1 AND seq = $2")
                .bind::<Text, _>(&lease.cursor)
                .bind::<BigInt, _>(result.seq())
                .execute(conn)?;
            if let Held::Still(hold) = result {
                insert(conn, &lease.cursor, std::slice::from_ref(hold))?;
            }
        }
        Ok(Advance::Done)
    })
}

/// The ordering keys that have a held message others must stay behind.
pub(crate) fn held_keys(conn: &mut PgConnection, cursor: &str) -> QueryResult<Vec<String>> {
    let keys: Vec<Key> = diesel::sql_query(
        "SELECT DISTINCT ordering_key FROM outbox_holds
         WHERE cursor = $1 AND ordering_key IS NOT NULL AND reason <> 'delayed'",
    )
    .bind::<Text, _>(cursor)
    .load(conn)?;
    Ok(keys.into_iter().map(|key| key.ordering_key).collect())
}

/// A delay counts from `deliver_after` as stored, any other wait from the database's present time.
pub(super) fn insert(conn: &mut PgConnection, cursor: &str, holds: &[Hold]) -> QueryResult<()> {
    for hold in holds {
        let Stored { state, attempts, after, error } = hold.result.stored();
        diesel::sql_query(
            "INSERT INTO outbox_holds (cursor, seq, state, reason, attempts, not_before, last_error, ordering_key)
             VALUES ($1, $2, $3, $4, $5,
                     coalesce(clock_timestamp() + $6 * interval '1 microsecond',
                              (SELECT deliver_after FROM outbox_messages WHERE seq = $2), clock_timestamp()),
                     $7, $8)
             ON CONFLICT DO NOTHING",
        )
        .bind::<Text, _>(cursor)
        .bind::<BigInt, _>(hold.seq)
        .bind::<Text, _>(state)
        .bind::<Text, _>(hold.reason.as_str())
        .bind::<Integer, _>(attempts)
        .bind::<Nullable<BigInt>, _>(after)
        .bind::<Text, _>(error)
        .bind::<Nullable<Text>, _>(hold.ordering_key.as_ref())
        .execute(conn)?;
    }
    Ok(())
}
