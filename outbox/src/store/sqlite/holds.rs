use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text};
use diesel::sqlite::SqliteConnection;

use super::cursor::{now, renew};
use super::row::{Row, RowSql, columns, entry};
use crate::reader::{Advance, Due, Held, Hold, HoldReason, Lease, ReadLimit, Settled, Stored};

/// Most messages taken along behind one that is due. The next of the key come due with the last of
/// them.
const RUN: i64 = 500;

#[derive(QueryableByName)]
struct Key {
    #[diesel(sql_type = Nullable<Text>)]
    ordering_key: Option<String>,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// A hold without its message, which may be large.
#[derive(QueryableByName)]
struct Candidate {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = Nullable<Text>)]
    ordering_key: Option<String>,
    #[diesel(sql_type = Bool)]
    blocked: bool,
}

/// Held messages whose time has come, each that heads its key with those behind it, as far as there is
/// no other that they wait for.
pub(crate) fn due(
    conn: &mut SqliteConnection,
    cursor: &str,
    limit: ReadLimit,
) -> QueryResult<Vec<Due>> {
    let heads: Vec<Candidate> = diesel::sql_query(concat!(
        "SELECT h.seq, h.attempts, h.reason, h.ordering_key,
                h.ordering_key IS NOT NULL AND EXISTS (
                    SELECT 1 FROM outbox_holds e
                    WHERE e.cursor = h.cursor AND e.ordering_key = h.ordering_key AND e.ordering_key IS NOT NULL
                      AND e.reason <> 'delayed'
                      AND (h.reason = 'delayed' OR (e.seq < h.seq AND e.reason <> 'behind'))) AS blocked
         FROM outbox_holds h
         WHERE h.cursor = ?1 AND h.state = 'waiting' AND h.reason <> 'behind' AND h.not_before <= ",
        now!(),
        " ORDER BY h.not_before, h.seq LIMIT ?2"
    ))
    .bind::<Text, _>(cursor)
    .bind::<BigInt, _>(i64::from(limit.rows))
    .load(conn)?;
    let (mut due, mut bytes): (Vec<Due>, u64) = (Vec::new(), 0);
    for head in heads {
        let behind = match &head.ordering_key {
            Some(key) if !head.blocked && head.reason != "delayed" => {
                run(conn, cursor, key, head.seq)?
            }
            Some(_) | None => Vec::new(),
        };
        for candidate in std::iter::once(head).chain(behind) {
            if due.len() >= limit.rows as usize || bytes >= limit.bytes {
                return Ok(due);
            }
            let Some(each) = with_message(conn, candidate)? else { continue };
            bytes += each.entry.message.payload.len() as u64 + ReadLimit::ROW_OVERHEAD;
            due.push(each);
        }
    }
    Ok(due)
}

fn run(
    conn: &mut SqliteConnection,
    cursor: &str,
    key: &str,
    head: i64,
) -> QueryResult<Vec<Candidate>> {
    diesel::sql_query(
        "SELECT h.seq, h.attempts, h.reason, h.ordering_key, false AS blocked FROM outbox_holds h
         WHERE h.cursor = ?1 AND h.ordering_key = ?2 AND h.ordering_key IS NOT NULL
           AND h.reason <> 'delayed' AND h.reason = 'behind' AND h.state = 'waiting' AND h.seq > ?3
           AND h.seq < coalesce((
               SELECT n.seq FROM outbox_holds n
               WHERE n.cursor = ?1 AND n.ordering_key = ?2 AND n.ordering_key IS NOT NULL
                 AND n.reason NOT IN ('delayed', 'behind') AND n.reason <> 'delayed' AND n.seq > ?3
               ORDER BY n.seq LIMIT 1), 9223372036854775807)
         ORDER BY h.seq LIMIT ?4",
    )
    .bind::<Text, _>(cursor)
    .bind::<Text, _>(key)
    .bind::<BigInt, _>(head)
    .bind::<BigInt, _>(RUN)
    .load(conn)
}

fn with_message(conn: &mut SqliteConnection, held: Candidate) -> QueryResult<Option<Due>> {
    let query = diesel::dsl::sql::<RowSql>(concat!(
        "SELECT m.seq, true, ",
        columns!(),
        " FROM outbox_messages m WHERE m.seq = "
    ))
    .bind::<BigInt, _>(held.seq);
    let row: Option<Row> = query.get_result(conn).optional()?;
    Ok(row.map(|row| Due {
        entry: entry(row),
        attempts: held.attempts.max(0).unsigned_abs(),
        // The CHECK allows no other; a reason of a newer release is as good as any refusal.
        reason: HoldReason::parse(&held.reason).unwrap_or(HoldReason::Refused),
        blocked: held.blocked,
    }))
}

/// Records how another attempt at held messages ended.
pub(crate) fn settle(
    conn: &mut SqliteConnection,
    lease: &Lease,
    results: &[Held],
) -> QueryResult<Settled> {
    conn.immediate_transaction(|conn| {
        match renew(conn, lease)? {
            Advance::LeaseLost => return Ok(Settled::LeaseLost),
            Advance::Done => {}
        }
        let mut keys = std::collections::BTreeSet::new();
        for moved in results.iter().filter(|held| held.is_moved()) {
            let gone: Option<Key> = diesel::sql_query(
                "DELETE FROM outbox_holds WHERE cursor = ?1 AND seq = ?2 RETURNING ordering_key",
            )
            .bind::<Text, _>(&lease.cursor)
            .bind::<BigInt, _>(moved.seq())
            .get_result(conn)
            .optional()?;
            keys.extend(gone.and_then(|gone| gone.ordering_key));
        }
        for held in results {
            match held.still() {
                None => {}
                Some(hold) if held.is_moved() => {
                    insert(conn, &lease.cursor, std::slice::from_ref(hold))?;
                }
                Some(hold) => update(conn, &lease.cursor, hold)?,
            }
        }
        let mut freed = Vec::new();
        for key in keys {
            if is_free(conn, &lease.cursor, &key)? {
                freed.push(key);
            }
        }
        Ok(Settled::Done { freed })
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
    Ok(keys.into_iter().filter_map(|key| key.ordering_key).collect())
}

/// How many messages are held, those that only wait for their time or behind another not counted.
pub(crate) fn count_held(conn: &mut SqliteConnection, cursor: &str) -> QueryResult<u64> {
    let count: Count = diesel::sql_query(
        "SELECT count(*) AS count FROM outbox_holds WHERE cursor = ?1 AND reason <> 'delayed' AND reason <> 'behind'",
    )
    .bind::<Text, _>(cursor)
    .get_result(conn)?;
    Ok(count.count.max(0).unsigned_abs())
}

/// A delay counts from `deliver_after` as stored, any other wait from the database's present time.
/// In order of their place: a trigger looks at what is in front of each.
pub(super) fn insert(conn: &mut SqliteConnection, cursor: &str, holds: &[Hold]) -> QueryResult<()> {
    let mut holds: Vec<&Hold> = holds.iter().collect();
    holds.sort_by_key(|hold| hold.seq);
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

fn update(conn: &mut SqliteConnection, cursor: &str, hold: &Hold) -> QueryResult<()> {
    let Stored { state, attempts, after, error } = hold.result.stored();
    diesel::sql_query(concat!(
        "UPDATE outbox_holds SET state = ?3, reason = ?4, attempts = ?5, last_error = ?7, not_before = ",
        now!(),
        " + coalesce(?6, 0) WHERE cursor = ?1 AND seq = ?2"
    ))
    .bind::<Text, _>(cursor)
    .bind::<BigInt, _>(hold.seq)
    .bind::<Text, _>(state)
    .bind::<Text, _>(hold.reason.as_str())
    .bind::<Integer, _>(attempts)
    .bind::<Nullable<BigInt>, _>(after)
    .bind::<Text, _>(error)
    .execute(conn)
    .map(|_| ())
}

fn is_free(conn: &mut SqliteConnection, cursor: &str, key: &str) -> QueryResult<bool> {
    let left: Count = diesel::sql_query(
        "SELECT count(*) AS count FROM (SELECT 1 FROM outbox_holds
         WHERE cursor = ?1 AND ordering_key = ?2 AND ordering_key IS NOT NULL AND reason <> 'delayed' LIMIT 1)",
    )
    .bind::<Text, _>(cursor)
    .bind::<Text, _>(key)
    .get_result(conn)?;
    Ok(left.count == 0)
}
