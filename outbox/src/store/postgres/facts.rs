use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};

use super::wake::is_on;
use crate::admin::{Facts, Identity, Right, TableUse};
use crate::row::time_of;

#[derive(QueryableByName)]
struct Server {
    #[diesel(sql_type = Text)]
    server: String,
    #[diesel(sql_type = BigInt)]
    now: i64,
    #[diesel(sql_type = Bool)]
    standby: bool,
    #[diesel(sql_type = Bool)]
    autovacuum: bool,
    #[diesel(sql_type = Nullable<Bool>)]
    encrypted: Option<bool>,
    #[diesel(sql_type = Bool)]
    wakeup: bool,
    #[diesel(sql_type = Bool)]
    prepares: bool,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Bool)]
    may_identify: bool,
    #[diesel(sql_type = Bool)]
    tracks_collation: bool,
}

#[derive(QueryableByName)]
struct Collation {
    #[diesel(sql_type = Text)]
    was: String,
    #[diesel(sql_type = Text)]
    is: String,
}

#[derive(QueryableByName)]
struct Cluster {
    #[diesel(sql_type = Text)]
    system_id: String,
    #[diesel(sql_type = BigInt)]
    timeline: i64,
}

#[derive(QueryableByName)]
struct Xids {
    #[diesel(sql_type = Nullable<BigInt>)]
    next: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    highest: Option<i64>,
    #[diesel(sql_type = Bool)]
    rows_ahead: bool,
}

#[derive(QueryableByName)]
struct Granted {
    #[diesel(sql_type = Text)]
    object: String,
    #[diesel(sql_type = Text)]
    privilege: String,
    #[diesel(sql_type = Text)]
    needed_by: String,
    #[diesel(sql_type = Bool)]
    granted: bool,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    exchange: String,
}

/// What a check of the installation wants to know.
pub(crate) fn facts(conn: &mut PgConnection) -> QueryResult<Facts> {
    let server: Server = diesel::sql_query(concat!(
        "SELECT 'PostgreSQL ' || current_setting('server_version') AS server,
                (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now, pg_is_in_recovery() AS standby,
                current_setting('autovacuum')::bool AS autovacuum, current_user::text AS role,
                CASE WHEN inet_server_addr() IS NOT NULL
                     THEN coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) END AS encrypted,
                has_function_privilege('pg_control_system()', 'EXECUTE')
                AND has_function_privilege('pg_control_checkpoint()', 'EXECUTE') AS may_identify,
                current_setting('server_version_num')::int >= 150000 AS tracks_collation,
                current_setting('max_prepared_transactions')::int > 0 AS prepares, ",
        is_on!(),
        " AS wakeup"
    ))
    .get_result(conn)?;
    let identity = if server.may_identify {
        let cluster: Cluster = diesel::sql_query(
            "SELECT s.system_identifier::text AS system_id,
                    CASE WHEN pg_is_in_recovery() THEN c.timeline_id::bigint
                         ELSE ('x' || lpad(left(pg_walfile_name(pg_current_wal_lsn()), 8), 16, '0'))::bit(64)::bigint END AS timeline
             FROM pg_control_system() s, pg_control_checkpoint() c",
        )
        .get_result(conn)?;
        Some(Identity { system_id: cluster.system_id, timeline: cluster.timeline })
    } else {
        None
    };
    let collation: Option<Collation> = if server.tracks_collation {
        diesel::sql_query(
            "SELECT coalesce(datcollversion, 'none') AS was,
                    coalesce(pg_database_collation_actual_version(oid), 'none') AS is
             FROM pg_database WHERE datname = current_database()
                AND (datcollversion IS NOT NULL OR pg_database_collation_actual_version(oid) IS NULL)",
        )
        .get_result(conn)
        .optional()?
    } else {
        None
    };
    let xids: Xids = diesel::sql_query(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next,
                max(greatest(pg_snapshot_xmax(snapshot)::text::bigint, pg_snapshot_xmax(late_snapshot)::text::bigint)) AS highest,
                coalesce((SELECT xid FROM outbox_messages ORDER BY xid DESC LIMIT 1)
                             >= pg_snapshot_xmax(pg_current_snapshot()), false) AS rows_ahead
         FROM outbox_cursors",
    )
    .get_result(conn)?;
    Ok(Facts {
        server: server.server,
        now: time_of(server.now),
        identity,
        next_xid: xids.next,
        highest_cursor_xid: xids.highest,
        rows_ahead: xids.rows_ahead,
        standby: server.standby,
        autovacuum: server.autovacuum,
        collation: collation.map(|collation| (collation.was, collation.is)),
        encrypted: server.encrypted,
        wakeup: Some(server.wakeup),
        prepares: server.prepares,
        role: server.role,
        rights: rights(conn)?,
    })
}

/// Asked for column by column where it is granted so.
fn rights(conn: &mut PgConnection) -> QueryResult<Vec<Right>> {
    let granted: Vec<Granted> = diesel::sql_query(
        "WITH needed (needed_by, object, columns, privilege) AS (VALUES
             ('relay', 'counterfoil_schema', '', 'SELECT'),
             ('relay', 'outbox_messages', '', 'SELECT'),
             ('relay', 'outbox_messages_seq_seq', '', 'SELECT'),
             ('relay', 'outbox_cursors', '', 'SELECT'),
             ('relay', 'outbox_cursors',
              'seq,snapshot,late_seq,late_snapshot,system_id,timeline,owner,epoch,lease_until,advanced_at', 'UPDATE'),
             ('relay', 'outbox_holds', '', 'SELECT'),
             ('relay', 'outbox_holds', '', 'INSERT'),
             ('relay', 'outbox_holds', 'state,reason,attempts,not_before,last_error', 'UPDATE'),
             ('relay', 'outbox_holds', '', 'DELETE'),
             ('purge', 'outbox_messages', '', 'DELETE'),
             ('operator', 'outbox_cursors', '', 'INSERT'),
             ('operator', 'outbox_cursors', 'paused_at,pause_reason', 'UPDATE'),
             ('operator', 'outbox_cursors', '', 'DELETE'),
             ('operator', 'outbox_audit', '', 'SELECT'),
             ('operator', 'outbox_audit', 'actor,action,cursor,reason,detail', 'INSERT'),
             ('operator', 'outbox_replays', '', 'SELECT'),
             ('operator', 'outbox_replays',
              'consumer,queue,forced,selection,rate,first_kept,total,position,last_seq,owner,lease_until,actor,reason', 'INSERT'),
             ('operator', 'outbox_replays',
              'sent,unsendable,position,state,last_error,owner,epoch,lease_until,updated_at,finished_at', 'UPDATE'))
         SELECT needed_by, object || CASE WHEN columns <> '' THEN ' (' || replace(columns, ',', ', ') || ')' ELSE '' END AS object,
                privilege,
                CASE WHEN object LIKE '%\\_seq' THEN has_sequence_privilege(object, privilege)
                     WHEN columns = '' THEN has_table_privilege(object, privilege)
                     ELSE (SELECT bool_and(has_column_privilege(object, name, privilege))
                           FROM unnest(string_to_array(columns, ',')) AS name) END AS granted
         FROM needed",
    )
    .load(conn)?;
    Ok(granted
        .into_iter()
        .map(|right| Right {
            needed_by: match &right.needed_by[..] {
                "relay" => TableUse::Relay,
                "purge" => TableUse::Purge,
                _ => TableUse::Operator,
            },
            object: right.object,
            privilege: right.privilege,
            granted: right.granted,
        })
        .collect())
}

/// The exchanges that pending and held messages go to.
pub(crate) fn exchanges(
    conn: &mut PgConnection,
    cursor: &str,
    rows: u32,
) -> QueryResult<Vec<String>> {
    let names: Vec<Name> = diesel::sql_query(
        "SELECT DISTINCT exchange FROM (
             (SELECT m.exchange FROM outbox_messages m
              WHERE m.seq > (SELECT seq FROM outbox_cursors WHERE name = $1) ORDER BY m.seq LIMIT $2)
             UNION ALL
             (SELECT m.exchange FROM outbox_holds h JOIN outbox_messages m USING (seq)
              WHERE h.cursor = $1 ORDER BY h.seq LIMIT $2)
         ) AS named
         WHERE (SELECT exchanges IS NULL OR named.exchange = ANY (exchanges) FROM outbox_cursors WHERE name = $1)
         ORDER BY exchange",
    )
    .bind::<Text, _>(cursor)
    .bind::<BigInt, _>(i64::from(rows))
    .load(conn)?;
    Ok(names.into_iter().map(|name| name.exchange).collect())
}
