use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Nullable, Text};
use diesel::sqlite::SqliteConnection;

use super::cursor::{now, renew};
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
    conn: &mut SqliteConnection,
    cursor: &str,
    limit: ReadLimit,
) -> QueryResult<Vec<Due>> {
    let query = diesel::dsl::sql::<(Integer, Text, RowSql)>(concat!(
        "SELECT h.attempts, h.reason, m.seq, ",
        columns!(),
        " FROM outbox_holds h JOIN outbox_messages m USING (seq) WHERE h.cursor = "
    ))
    .bind::<Text, _>(cursor)
    .sql(concat!(
        " AND h.state = 'waiting' AND h.not_before <= ",
        now!(),
        " AND (h.reason = 'delayed' OR NOT EXISTS (
             SELECT 1 FROM outbox_holds e
             WHERE e.cursor = h.cursor AND e.ordering_key = h.ordering_key AND e.seq < h.seq AND e.reason <> 'delayed'))
         ORDER BY h.not_before, h.seq LIMIT "
    ))
    .bind::<BigInt, _>(i64::from(limit.rows));
    let mut due: Vec<Due> = Vec::new();
    let mut bytes = 0;
    for row in query.load_iter::<(i32, String, Row), _>(conn)? {
        let (attempts, reason, row) = row?;
        let entry = entry(row);
        bytes += entry.message.payload.len() as u64 + ReadLimit::ROW_OVERHEAD;
        due.push(Due {
            entry,
            attempts: attempts.max(0).unsigned_abs(),
            // The CHECK allows no other; a reason of a newer release is as good as any refusal.
            reason: HoldReason::parse(&reason).unwrap_or(HoldReason::Refused),
        });
        if bytes >= limit.bytes {
            break;
        }
    }
    Ok(due)
}

/// Records how another attempt at held messages ended.
pub(crate) fn settle(
    conn: &mut SqliteConnection,
    lease: &Lease,
    results: &[Held],
) -> QueryResult<Advance> {
    conn.immediate_transaction(|conn| {
        match renew(conn, lease)? {
            Advance::LeaseLost => return Ok(Advance::LeaseLost),
            Advance::Done => {}
        }
        for result in results {
            diesel::sql_query("DELETE FROM outbox_holds WHERE cursor = ?1 AND seq = ?2")
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
pub(crate) fn held_keys(conn: &mut SqliteConnection, cursor: &str) -> QueryResult<Vec<String>> {
    let keys: Vec<Key> = diesel::sql_query(
        "SELECT DISTINCT ordering_key FROM outbox_holds
         WHERE cursor = ?1 AND ordering_key IS NOT NULL AND reason <> 'delayed'",
    )
    .bind::<Text, _>(cursor)
    .load(conn)?;
    Ok(keys.into_iter().map(|key| key.ordering_key).collect())
}

/// A delay counts from `deliver_after` as stored, any other wait from the database's present time.
pub(super) fn insert(conn: &mut SqliteConnection, cursor: &str, holds: &[Hold]) -> QueryResult<()> {
    for hold in holds {
        let Stored { state, attempts, after, error } = hold.result.stored();
        diesel::sql_query(concat!(
            "INSERT INTO outbox_holds (cursor, seq, state, reason, attempts, not_before, last_error, ordering_key)
             VALUES (?1, ?2, ?3, ?4, ?5, coalesce(",
            now!(),
            " + ?6, (SELECT deliver_after FROM outbox_messages WHERE seq = ?2), ",
            now!(),
            "), ?7, ?8) ON CONFLICT DO NOTHING"
        ))
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
