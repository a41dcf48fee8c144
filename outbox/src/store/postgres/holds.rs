use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text};

use super::cursor::renew;
use super::row::{Row, RowSql, columns, entry, weight};
use crate::reader::{Advance, Due, Held, Hold, HoldReason, Lease, ReadLimit, Settled};

/// Most messages taken along behind one that is due. The next of the key come due with the last of
/// them.
const RUN: i64 = 500;

#[derive(QueryableByName)]
struct Key {
    #[diesel(sql_type = Text)]
    ordering_key: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Held messages whose time has come, each that heads its key with those behind it, as far as there is
/// no other that they wait for.
pub(crate) fn due(
    conn: &mut PgConnection,
    cursor: &str,
    limit: ReadLimit,
) -> QueryResult<Vec<Due>> {
    // statement_timestamp() and not clock_timestamp(), which is no bound for an index: the search
    // would step over every message that only waits for its time.
    let query = diesel::dsl::sql::<(Integer, Text, Bool, RowSql)>("WITH c AS (SELECT ")
        .bind::<Text, _>(cursor)
        .sql(
            "::text AS name), heads AS MATERIALIZED (
                 SELECT h.seq, h.attempts, h.reason, h.not_before, h.ordering_key, h.seq AS head,
                        h.ordering_key IS NOT NULL AND EXISTS (
                            SELECT FROM outbox_holds e
                            WHERE e.cursor = h.cursor AND e.ordering_key = h.ordering_key AND e.ordering_key IS NOT NULL
                              AND e.reason <> 'delayed'
                              AND (h.reason = 'delayed' OR (e.seq < h.seq AND e.reason <> 'behind'))) AS blocked
                 FROM outbox_holds h
                 WHERE h.cursor = (SELECT name FROM c) AND h.state = 'waiting' AND h.reason <> 'behind'
                   AND h.not_before <= statement_timestamp()
                 ORDER BY h.not_before, h.seq LIMIT ",
        )
        .bind::<BigInt, _>(i64::from(limit.rows))
        .sql(
            "), due AS (
                 SELECT seq, attempts, reason, not_before, head, blocked FROM heads
                 UNION ALL
                 SELECT f.seq, f.attempts, f.reason, h.not_before, h.head, false
                 FROM heads h CROSS JOIN LATERAL (
                     SELECT b.seq, b.attempts, b.reason FROM outbox_holds b
                     WHERE b.cursor = (SELECT name FROM c) AND b.ordering_key = h.ordering_key
                       AND b.ordering_key IS NOT NULL AND b.reason <> 'delayed' AND b.reason = 'behind'
                       AND b.state = 'waiting' AND b.seq > h.seq
                       AND b.seq < coalesce((
                           SELECT n.seq FROM outbox_holds n
                           WHERE n.cursor = (SELECT name FROM c) AND n.ordering_key = h.ordering_key
                             AND n.ordering_key IS NOT NULL AND n.reason NOT IN ('delayed', 'behind')
                             AND n.reason <> 'delayed' AND n.seq > h.seq
                           ORDER BY n.seq LIMIT 1), 9223372036854775807)
                     ORDER BY b.seq LIMIT ",
        )
        .bind::<BigInt, _>(RUN)
        .sql(
            ") f WHERE h.reason <> 'delayed' AND NOT h.blocked
                 ORDER BY not_before, head, seq LIMIT ",
        )
        .bind::<BigInt, _>(i64::from(limit.rows))
        .sql(concat!(
            "), joined AS (
                 SELECT m.*, false AS late, true AS wanted, d.attempts, d.reason, d.not_before, d.head, d.blocked
                 FROM due d JOIN outbox_messages m USING (seq)
             ), sized AS (
                 SELECT joined.*, sum(",
            weight!(),
            ") OVER w - ",
            weight!(),
            " AS before
                 FROM joined WINDOW w AS (ORDER BY not_before, head, seq ROWS UNBOUNDED PRECEDING)
             )
             SELECT r.attempts, r.reason, r.blocked, ",
            columns!(),
            " FROM sized r WHERE r.before < "
        ))
        .bind::<BigInt, _>(limit.bytes.min(i64::MAX as u64).cast_signed())
        .sql(" ORDER BY r.not_before, r.head, r.seq");
    let rows: Vec<(i32, String, bool, Row)> = query.load(conn)?;
    Ok(rows
        .into_iter()
        .map(|(attempts, reason, blocked, row)| Due {
            entry: entry(row),
            attempts: attempts.max(0).unsigned_abs(),
            // The CHECK allows no other; a reason of a newer release is as good as any refusal.
            reason: HoldReason::parse(&reason).unwrap_or(HoldReason::Refused),
            blocked,
        })
        .collect())
}

/// Records how another attempt at held messages ended.
pub(crate) fn settle(
    conn: &mut PgConnection,
    lease: &Lease,
    results: &[Held],
) -> QueryResult<Settled> {
    conn.transaction(|conn| {
        match renew(conn, lease)? {
            Advance::LeaseLost => return Ok(Settled::LeaseLost),
            Advance::Done => {}
        }
        let (moved, changed): (Vec<&Held>, Vec<&Held>) =
            results.iter().partition(|held| held.is_moved());
        let gone: Vec<i64> = moved.iter().map(|held| held.seq()).collect();
        let keys: Vec<Key> = diesel::sql_query(
            "WITH gone AS (DELETE FROM outbox_holds WHERE cursor = $1 AND seq = ANY ($2) RETURNING ordering_key)
             SELECT DISTINCT ordering_key FROM gone WHERE ordering_key IS NOT NULL",
        )
        .bind::<Text, _>(&lease.cursor)
        .bind::<Array<BigInt>, _>(&gone)
        .load(conn)?;
        let again: Vec<&Hold> = moved.iter().filter_map(|held| held.still()).collect();
        insert_all(conn, &lease.cursor, &again)?;
        let still: Vec<&Hold> = changed.iter().filter_map(|held| held.still()).collect();
        update_all(conn, &lease.cursor, &still)?;
        let keys: Vec<String> = keys.into_iter().map(|key| key.ordering_key).collect();
        Ok(Settled::Done { freed: free(conn, &lease.cursor, &keys)? })
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

/// How many messages are held, those that only wait for their time or behind another not counted.
pub(crate) fn count_held(conn: &mut PgConnection, cursor: &str) -> QueryResult<u64> {
    let count: Count = diesel::sql_query(
        "SELECT count(*) AS count FROM outbox_holds WHERE cursor = $1 AND reason <> 'delayed' AND reason <> 'behind'",
    )
    .bind::<Text, _>(cursor)
    .get_result(conn)?;
    Ok(count.count.max(0).unsigned_abs())
}

/// A delay counts from `deliver_after` as stored, any other wait from the database's present time.
pub(super) fn insert(conn: &mut PgConnection, cursor: &str, holds: &[Hold]) -> QueryResult<()> {
    insert_all(conn, cursor, &holds.iter().collect::<Vec<_>>())
}

/// The holds as columns: seq, state, reason, attempts, wait, error, key.
struct Columns {
    seqs: Vec<i64>,
    states: Vec<&'static str>,
    reasons: Vec<&'static str>,
    attempts: Vec<i32>,
    waits: Vec<Option<i64>>,
    errors: Vec<String>,
    keys: Vec<Option<String>>,
}

impl Columns {
    fn of(holds: &[&Hold]) -> Self {
        let stored: Vec<_> = holds.iter().map(|hold| hold.result.stored()).collect();
        Self {
            seqs: holds.iter().map(|hold| hold.seq).collect(),
            states: stored.iter().map(|stored| stored.state).collect(),
            reasons: holds.iter().map(|hold| hold.reason.as_str()).collect(),
            attempts: stored.iter().map(|stored| stored.attempts).collect(),
            waits: stored.iter().map(|stored| stored.after).collect(),
            errors: stored.iter().map(|stored| stored.error.to_owned()).collect(),
            keys: holds.iter().map(|hold| hold.ordering_key.clone()).collect(),
        }
    }
}

/// One statement whatever the number: when a whole exchange is missing there are thousands, and the
/// lease must not run out over them.
fn insert_all(conn: &mut PgConnection, cursor: &str, holds: &[&Hold]) -> QueryResult<()> {
    if holds.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(holds);
    diesel::sql_query(
        "INSERT INTO outbox_holds (cursor, seq, state, reason, attempts, not_before, last_error, ordering_key)
         SELECT $1, h.seq, h.state, h.reason, h.attempts,
                coalesce(clock_timestamp() + h.wait * interval '1 microsecond',
                         (SELECT m.deliver_after FROM outbox_messages m WHERE m.seq = h.seq), clock_timestamp()),
                h.error, h.key
         FROM unnest($2::bigint[], $3::text[], $4::text[], $5::int[], $6::bigint[], $7::text[], $8::text[])
              AS h (seq, state, reason, attempts, wait, error, key)
         ORDER BY h.seq
         ON CONFLICT DO NOTHING",
    )
    .bind::<Text, _>(cursor)
    .bind::<Array<BigInt>, _>(columns.seqs)
    .bind::<Array<Text>, _>(columns.states)
    .bind::<Array<Text>, _>(columns.reasons)
    .bind::<Array<Integer>, _>(columns.attempts)
    .bind::<Array<Nullable<BigInt>>, _>(columns.waits)
    .bind::<Array<Text>, _>(columns.errors)
    .bind::<Array<Nullable<Text>>, _>(columns.keys)
    .execute(conn)
    .map(|_| ())
}

fn update_all(conn: &mut PgConnection, cursor: &str, holds: &[&Hold]) -> QueryResult<()> {
    if holds.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(holds);
    diesel::sql_query(
        "UPDATE outbox_holds o
         SET state = h.state, reason = h.reason, attempts = h.attempts, last_error = h.error,
             not_before = clock_timestamp() + coalesce(h.wait, 0) * interval '1 microsecond'
         FROM unnest($2::bigint[], $3::text[], $4::text[], $5::int[], $6::bigint[], $7::text[])
              AS h (seq, state, reason, attempts, wait, error)
         WHERE o.cursor = $1 AND o.seq = h.seq",
    )
    .bind::<Text, _>(cursor)
    .bind::<Array<BigInt>, _>(columns.seqs)
    .bind::<Array<Text>, _>(columns.states)
    .bind::<Array<Text>, _>(columns.reasons)
    .bind::<Array<Integer>, _>(columns.attempts)
    .bind::<Array<Nullable<BigInt>>, _>(columns.waits)
    .bind::<Array<Text>, _>(columns.errors)
    .execute(conn)
    .map(|_| ())
}

/// Those of `keys` that nothing is held of any more.
fn free(conn: &mut PgConnection, cursor: &str, keys: &[String]) -> QueryResult<Vec<String>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let free: Vec<Key> = diesel::sql_query(
        "SELECT k AS ordering_key FROM unnest($2::text[]) k
         WHERE NOT EXISTS (SELECT FROM outbox_holds h
             WHERE h.cursor = $1 AND h.ordering_key = k AND h.ordering_key IS NOT NULL AND h.reason <> 'delayed')",
    )
    .bind::<Text, _>(cursor)
    .bind::<Array<Text>, _>(keys)
    .load(conn)?;
    Ok(free.into_iter().map(|key| key.ordering_key).collect())
}
