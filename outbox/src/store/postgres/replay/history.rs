use diesel::dsl::sql;
use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{BoxedSqlQuery, SqlQuery};
use diesel::sql_types::{Array, BigInt, Nullable, Text, Uuid};

use crate::reader::{Entry, ReadLimit};
use crate::replay::{Counted, Edge, ReplayJob, ReplayPiece, Selection};
use crate::row::{micros_of, time_of};
use crate::store::postgres::row::{Row, RowSql, columns, entry, weight};
use crate::store::replay_piece::{PIECE, Picked, counted, piece};

#[derive(QueryableByName)]
struct First {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = BigInt)]
    created_at: i64,
}

#[derive(QueryableByName)]
struct Group {
    #[diesel(sql_type = Nullable<Text>)]
    kind: Option<String>,
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = BigInt)]
    first: i64,
    #[diesel(sql_type = BigInt)]
    last: i64,
    #[diesel(sql_type = Nullable<Text>)]
    ids: Option<String>,
}

#[derive(QueryableByName)]
struct Pick {
    #[diesel(sql_type = BigInt)]
    looked_at: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    last: Option<i64>,
    #[diesel(sql_type = Array<BigInt>)]
    seqs: Vec<i64>,
}

/// A piece of the log, and what of it fits a [`Selection`]. Materialized: a search for what fits could
/// walk the whole log within one statement.
macro_rules! wanted {
    () => {
        "WITH piece AS MATERIALIZED (
             SELECT seq, id, kind, operation, ordering_key, deliver_after, created_at FROM outbox_messages
             WHERE seq > $8 AND seq <= $9 ORDER BY seq LIMIT $10
         ), wanted AS (
             SELECT seq, id, kind FROM piece
             WHERE ($1::text[] IS NULL OR kind = ANY ($1)) AND ($2::text[] IS NULL OR ordering_key = ANY ($2))
               AND ($3::text[] IS NULL OR operation = ANY ($3)) AND ($4::uuid[] IS NULL OR id = ANY ($4))
               AND ($5::bigint IS NULL OR created_at >= timestamptz 'epoch' + $5 * interval '1 microsecond')
               AND ($6::bigint IS NULL OR created_at < timestamptz 'epoch' + $6 * interval '1 microsecond')
               AND (deliver_after IS NULL OR deliver_after <= CASE WHEN $7::bigint IS NULL THEN clock_timestamp()
                        ELSE timestamptz 'epoch' + $7 * interval '1 microsecond' END)
         ) "
    };
}

fn selecting<'a>(
    text: &'static str,
    selection: &'a Selection,
    due: Option<i64>,
    (from, to): (i64, i64),
    rows: u32,
) -> BoxedSqlQuery<'a, Pg, SqlQuery> {
    let ids = selection.ids.as_ref();
    let ids = ids.map(|ids| ids.iter().map(|id| *id.as_uuid()).collect::<Vec<_>>());
    diesel::sql_query(text)
        .into_boxed::<Pg>()
        .bind::<Nullable<Array<Text>>, _>(&selection.kinds)
        .bind::<Nullable<Array<Text>>, _>(&selection.keys)
        .bind::<Nullable<Array<Text>>, _>(&selection.operations)
        .bind::<Nullable<Array<Uuid>>, _>(ids)
        .bind::<Nullable<BigInt>, _>(selection.since.map(micros_of))
        .bind::<Nullable<BigInt>, _>(selection.until.map(micros_of))
        .bind::<Nullable<BigInt>, _>(due)
        .bind::<BigInt, _>(from)
        .bind::<BigInt, _>(to)
        .bind::<BigInt, _>(i64::from(rows))
}

/// The first row the log still has.
pub(crate) fn first_kept(conn: &mut PgConnection) -> QueryResult<Option<Edge>> {
    let first: Option<First> = diesel::sql_query(
        "SELECT seq, (extract(epoch FROM created_at) * 1000000)::bigint AS created_at
         FROM outbox_messages ORDER BY seq LIMIT 1",
    )
    .get_result(conn)
    .optional()?;
    Ok(first.map(|first| Edge { seq: first.seq, created_at: time_of(first.created_at) }))
}

/// What of the next `rows` rows fits a selection, by kind.
pub(crate) fn count_history(
    conn: &mut PgConnection,
    selection: &Selection,
    from: i64,
    rows: u32,
) -> QueryResult<Counted> {
    let text = concat!(
        wanted!(),
        "SELECT kind, count(*) AS count, min(seq) AS first, max(seq) AS last,
                CASE WHEN $4::uuid[] IS NOT NULL THEN json_agg(id)::text END AS ids
         FROM wanted GROUP BY kind
         UNION ALL
         SELECT NULL, count(*), 0, coalesce(max(seq), 0), NULL FROM piece"
    );
    let span = (from, selection.to_seq.unwrap_or(i64::MAX));
    let groups: Vec<Group> = selecting(text, selection, None, span, rows).load(conn)?;
    let groups = groups.into_iter().map(|g| (g.kind, g.count, g.first, g.last, g.ids));
    Ok(counted(groups, rows))
}

/// The next messages of a replay. What fits is found first and fetched then: a large payload that is
/// not wanted is not looked at.
pub(crate) fn read_history(
    conn: &mut PgConnection,
    job: &ReplayJob,
    from: i64,
    limit: ReadLimit,
) -> QueryResult<ReplayPiece> {
    let text = concat!(
        wanted!(),
        "SELECT (SELECT count(*) FROM piece) AS looked_at, (SELECT max(seq) FROM piece) AS last,
                ARRAY(SELECT seq FROM wanted ORDER BY seq LIMIT $11) AS seqs"
    );
    let span = (from, job.last_seq);
    let pick: Pick = selecting(text, &job.selection, Some(job.due), span, PIECE)
        .bind::<BigInt, _>(i64::from(limit.rows))
        .get_result(conn)?;
    let picked = Picked {
        full: pick.looked_at >= i64::from(PIECE),
        last: pick.last.unwrap_or(from),
        seqs: pick.seqs,
    };
    let entries = fetch(conn, &picked.seqs, limit)?;
    Ok(piece(picked, entries, limit))
}

fn fetch(conn: &mut PgConnection, seqs: &[i64], limit: ReadLimit) -> QueryResult<Vec<Entry>> {
    if seqs.is_empty() {
        return Ok(Vec::new());
    }
    let query = sql::<RowSql>(concat!("SELECT ", columns!(), " FROM (SELECT sized.*, sum("))
        .sql(weight!())
        .sql(concat!(
            ") OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - ",
            weight!(),
            " AS before FROM ("
        ))
        .sql("SELECT m.*, false AS late, true AS wanted FROM outbox_messages m WHERE m.seq = ANY (")
        .bind::<Array<BigInt>, _>(seqs)
        .sql(")) sized) r WHERE r.before < ")
        .bind::<BigInt, _>(limit.bytes.min(i64::MAX as u64).cast_signed())
        .sql(" ORDER BY r.seq");
    Ok(query.load::<Row>(conn)?.into_iter().map(entry).collect())
}
