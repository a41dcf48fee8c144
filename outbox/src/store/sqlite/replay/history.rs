use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::query_builder::{BoxedSqlQuery, SqlQuery};
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel::sqlite::{Sqlite, SqliteConnection};
use serde::Serialize;

use crate::reader::{Entry, ReadLimit};
use crate::replay::{Counted, Edge, ReplayJob, ReplayPiece, Selection};
use crate::row::{micros_of, time_of};
use crate::store::replay_piece::{PIECE, Picked, counted, piece};
use crate::store::sqlite::cursor::now;
use crate::store::sqlite::row::{Row, RowSql, Rows, columns};

#[derive(QueryableByName)]
struct First {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = BigInt)]
    created_at: i64,
}

#[derive(QueryableByName)]
struct Group {
    #[diesel(sql_type = Nullable<Binary>)]
    kind: Option<Vec<u8>>,
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
    #[diesel(sql_type = Text)]
    seqs: String,
}

/// A piece of the log, and what of it fits a [`Selection`]. Materialized: a search for what fits could
/// walk the whole log within one statement.
macro_rules! wanted {
    () => {
        concat!(
            "WITH piece AS MATERIALIZED (
                 SELECT seq, id, kind, operation, ordering_key, deliver_after, created_at FROM outbox_messages
                 WHERE seq > ?8 AND seq <= ?9 ORDER BY seq LIMIT ?10
             ), wanted AS (
                 SELECT seq, id, kind FROM piece
                 WHERE (?1 IS NULL OR kind IN (SELECT value FROM json_each(?1)))
                   AND (?2 IS NULL OR ordering_key IN (SELECT value FROM json_each(?2)))
                   AND (?3 IS NULL OR operation IN (SELECT value FROM json_each(?3)))
                   AND (?4 IS NULL OR lower(id) IN (SELECT value FROM json_each(?4)))
                   AND (?5 IS NULL OR created_at >= ?5) AND (?6 IS NULL OR created_at < ?6)
                   AND (deliver_after IS NULL OR deliver_after <= coalesce(?7, ",
            now!(),
            "))) "
        )
    };
}

fn selecting<'a>(
    text: &'static str,
    selection: &Selection,
    due: Option<i64>,
    (from, to): (i64, i64),
    rows: u32,
) -> BoxedSqlQuery<'a, Sqlite, SqlQuery> {
    diesel::sql_query(text)
        .into_boxed::<Sqlite>()
        .bind::<Nullable<Text>, _>(list(&selection.kinds))
        .bind::<Nullable<Text>, _>(list(&selection.keys))
        .bind::<Nullable<Text>, _>(list(&selection.operations))
        .bind::<Nullable<Text>, _>(list(&selection.ids))
        .bind::<Nullable<BigInt>, _>(selection.since.map(micros_of))
        .bind::<Nullable<BigInt>, _>(selection.until.map(micros_of))
        .bind::<Nullable<BigInt>, _>(due)
        .bind::<BigInt, _>(from)
        .bind::<BigInt, _>(to)
        .bind::<BigInt, _>(i64::from(rows))
}

/// A list as a JSON array.
fn list(values: &Option<impl Serialize>) -> Option<String> {
    // Texts always have a JSON form.
    values.as_ref().map(|values| serde_json::to_string(values).unwrap_or_default())
}

/// The first row the log still has.
pub(crate) fn first_kept(conn: &mut SqliteConnection) -> QueryResult<Option<Edge>> {
    let first: Option<First> =
        diesel::sql_query("SELECT seq, created_at FROM outbox_messages ORDER BY seq LIMIT 1")
            .get_result(conn)
            .optional()?;
    Ok(first.map(|first| Edge { seq: first.seq, created_at: time_of(first.created_at) }))
}

/// What of the next `rows` rows fits a selection, by kind.
pub(crate) fn count_history(
    conn: &mut SqliteConnection,
    selection: &Selection,
    from: i64,
    rows: u32,
) -> QueryResult<Counted> {
    let text = concat!(
        wanted!(),
        "SELECT CAST(kind AS BLOB) AS kind, count(*) AS count, min(seq) AS first, max(seq) AS last,
                CASE WHEN ?4 IS NOT NULL THEN json_group_array(id) END AS ids
         FROM wanted GROUP BY kind
         UNION ALL
         SELECT NULL, count(*), 0, coalesce(max(seq), 0), NULL FROM piece"
    );
    let span = (from, selection.to_seq.unwrap_or(i64::MAX));
    let groups: Vec<Group> = selecting(text, selection, None, span, rows).load(conn)?;
    let kind = |kind: Vec<u8>| String::from_utf8_lossy(&kind).into_owned();
    let groups = groups.into_iter().map(|g| (g.kind.map(kind), g.count, g.first, g.last, g.ids));
    Ok(counted(groups, rows))
}

/// The next messages of a replay. What fits is found first and fetched then: a large payload that is
/// not wanted is not looked at.
pub(crate) fn read_history(
    conn: &mut SqliteConnection,
    job: &ReplayJob,
    from: i64,
    limit: ReadLimit,
) -> QueryResult<ReplayPiece> {
    let text = concat!(
        wanted!(),
        "SELECT (SELECT count(*) FROM piece) AS looked_at, (SELECT max(seq) FROM piece) AS last,
                (SELECT json_group_array(seq) FROM (SELECT seq FROM wanted ORDER BY seq LIMIT ?11)) AS seqs"
    );
    let span = (from, job.last_seq);
    let pick: Pick = selecting(text, &job.selection, Some(job.due), span, PIECE)
        .bind::<BigInt, _>(i64::from(limit.rows))
        .get_result(conn)?;
    let picked = Picked {
        full: pick.looked_at >= i64::from(PIECE),
        last: pick.last.unwrap_or(from),
        seqs: serde_json::from_str(&pick.seqs)
            .map_err(|error| diesel::result::Error::DeserializationError(error.into()))?,
    };
    let entries = fetch(conn, &pick.seqs, limit)?;
    Ok(piece(picked, entries, limit))
}

fn fetch(conn: &mut SqliteConnection, seqs: &str, limit: ReadLimit) -> QueryResult<Vec<Entry>> {
    let query = sql::<RowSql>(concat!(
        "SELECT m.seq, 1, ",
        columns!(),
        " FROM outbox_messages m WHERE m.seq IN "
    ))
    .sql("(SELECT value FROM json_each(")
    .bind::<Text, _>(seqs)
    .sql(")) ORDER BY m.seq");
    Ok(Rows::of(query.load_iter::<Row, _>(conn)?, limit)?.entries)
}
