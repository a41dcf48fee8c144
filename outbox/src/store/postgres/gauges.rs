use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};

use crate::admin::{Backlog, DeadTuples, Vitals, XminHolder};

#[derive(QueryableByName)]
struct Cursor {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    snapshot: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    late_seq: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    late_snapshot: Option<String>,
}

#[derive(QueryableByName)]
struct Waiting {
    #[diesel(sql_type = BigInt)]
    messages: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    oldest: Option<i64>,
}

#[derive(QueryableByName)]
struct Oldest {
    #[diesel(sql_type = Text)]
    who: String,
    #[diesel(sql_type = Text)]
    database: String,
    #[diesel(sql_type = BigInt)]
    transactions: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    open: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    since_query: Option<i64>,
}

#[derive(QueryableByName)]
struct Table {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    dead: i64,
    #[diesel(sql_type = BigInt)]
    live: i64,
    #[diesel(sql_type = Bool)]
    autovacuum_off: bool,
}

/// How far a cursor is behind. As the view `outbox_pending` has it, but with the cursor's values as
/// constants: the planner must see that the range above the snapshot's xmax is short.
pub(crate) fn backlog(
    conn: &mut PgConnection,
    cursor: &str,
    bound: u32,
    within: Duration,
) -> QueryResult<Backlog> {
    guarded(conn, within, |conn| {
        let at: Option<Cursor> = diesel::sql_query(
            "SELECT seq, snapshot::text AS snapshot, late_seq, late_snapshot::text AS late_snapshot
             FROM outbox_cursors WHERE name = $1",
        )
        .bind::<Text, _>(cursor)
        .get_result(conn)
        .optional()?;
        let Some(at) = at else { return Ok(Backlog::default()) };
        // The first row above the cursor is the oldest of its kind but for concurrent inserts.
        let waiting: Waiting = diesel::sql_query(
            "WITH filter AS MATERIALIZED (SELECT kinds, exchanges FROM outbox_cursors WHERE name = $1),
             pending AS (
                 (SELECT seq, xid, kind, exchange, created_at FROM outbox_messages WHERE seq > $2 ORDER BY seq)
                 UNION ALL
                 SELECT seq, xid, kind, exchange, created_at FROM outbox_messages
                 WHERE seq <= $2 AND xid = ANY (ARRAY(SELECT pg_snapshot_xip($3::text::pg_snapshot)))
                 UNION ALL
                 SELECT seq, xid, kind, exchange, created_at FROM outbox_messages
                 WHERE seq <= $2 AND xid >= pg_snapshot_xmax($3::text::pg_snapshot)
             ), bounded AS (
                 SELECT p.created_at FROM pending p, filter f
                 WHERE ($5::text IS NULL OR p.seq > coalesce($4, 0) OR NOT pg_visible_in_snapshot(p.xid, $5::text::pg_snapshot))
                   AND (f.kinds IS NULL OR p.kind = ANY (f.kinds)) AND (f.exchanges IS NULL OR p.exchange = ANY (f.exchanges))
                 LIMIT $6
             )
             SELECT count(*) AS messages,
                    (extract(epoch FROM clock_timestamp() - min(created_at)) * 1000000)::bigint AS oldest
             FROM bounded",
        )
        .bind::<Text, _>(cursor)
        .bind::<BigInt, _>(at.seq)
        .bind::<Text, _>(&at.snapshot)
        .bind::<Nullable<BigInt>, _>(at.late_seq)
        .bind::<Nullable<Text>, _>(&at.late_snapshot)
        .bind::<BigInt, _>(i64::from(bound) + 1)
        .get_result(conn)?;
        let bound = i64::from(bound);
        Ok(Backlog {
            messages: waiting.messages.min(bound),
            more: waiting.messages > bound,
            oldest: waiting.oldest.map(ago),
        })
    })
}

/// Who holds back vacuum, and dead rows. Of other roles' sessions only a member of
/// `pg_read_all_stats` sees anything.
pub(crate) fn vitals(conn: &mut PgConnection, within: Duration) -> QueryResult<Vitals> {
    guarded(conn, within, |conn| {
        let oldest: Option<Oldest> = diesel::sql_query(
            "SELECT who, database, transactions, open, since_query FROM (
                 SELECT 'process ' || pid || coalesce(' of ' || usename, '') || coalesce(' (' || nullif(application_name, '') || ')', '') AS who,
                        coalesce(datname, '') AS database, greatest(age(backend_xid), age(backend_xmin))::bigint AS transactions,
                        (extract(epoch FROM clock_timestamp() - xact_start) * 1000000)::bigint AS open,
                        (extract(epoch FROM clock_timestamp() - query_start) * 1000000)::bigint AS since_query
                 FROM pg_stat_activity
                 WHERE pid <> pg_backend_pid() AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)
                 UNION ALL
                 SELECT 'prepared transaction ' || quote_literal(gid) || ' of ' || owner, database::text, age(transaction)::bigint,
                        (extract(epoch FROM clock_timestamp() - prepared) * 1000000)::bigint, NULL
                 FROM pg_prepared_xacts
                 UNION ALL
                 SELECT 'replication slot ' || slot_name, coalesce(database, ''), greatest(age(xmin), age(catalog_xmin))::bigint, NULL, NULL
                 FROM pg_replication_slots WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
             ) AS holders ORDER BY transactions DESC, open DESC NULLS LAST LIMIT 1",
        )
        .get_result(conn)
        .optional()?;
        let tables: Vec<Table> = diesel::sql_query(
            "SELECT c.relname::text AS name, coalesce(s.n_dead_tup, 0) AS dead, coalesce(s.n_live_tup, 0) AS live,
                    coalesce('autovacuum_enabled=false' = ANY (c.reloptions) OR 'autovacuum_enabled=off' = ANY (c.reloptions), false) AS autovacuum_off
             FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
             WHERE c.oid IN ('outbox_messages'::regclass, 'outbox_cursors'::regclass, 'outbox_holds'::regclass)
             ORDER BY c.relname",
        )
        .load(conn)?;
        Ok(Vitals {
            oldest_xmin: oldest.map(|holder| XminHolder {
                who: holder.who,
                database: holder.database,
                transactions: holder.transactions.max(0),
                open: holder.open.map(ago),
                since_query: holder.since_query.map(ago),
            }),
            dead_tuples: tables
                .into_iter()
                .map(|Table { name, dead, live, autovacuum_off }| DeadTuples {
                    table: name,
                    dead,
                    live,
                    autovacuum_off,
                })
                .collect(),
        })
    })
}

/// For the transaction and not the session, which may be another client's next behind a pooler.
fn guarded<T>(
    conn: &mut PgConnection,
    within: Duration,
    work: impl FnOnce(&mut PgConnection) -> QueryResult<T>,
) -> QueryResult<T> {
    conn.transaction(|conn| {
        diesel::sql_query(format!("SET LOCAL statement_timeout = {}", within.as_millis().max(1)))
            .execute(conn)?;
        work(conn)
    })
}

fn ago(micros: i64) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}
