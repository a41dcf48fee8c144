use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::sqlite::SqliteConnection;

use super::row::{Row, RowSql, Rows, columns};
use crate::reader::{Chunk, Filter, Position, ReadLimit};

/// Reads on from a position: seq order is commit order here; see [`crate::reader`].
pub(crate) fn read(
    conn: &mut SqliteConnection,
    from: &Position,
    filter: &Filter,
    limit: ReadLimit,
) -> QueryResult<Chunk> {
    let (kinds, exchanges) = (names(&filter.kinds), names(&filter.exchanges));
    let query = diesel::dsl::sql::<RowSql>("WITH f AS (SELECT ")
        .bind::<Nullable<Text>, _>(&kinds)
        .sql(" AS kinds, ")
        .bind::<Nullable<Text>, _>(&exchanges)
        .sql(concat!(
            " AS exchanges) SELECT m.seq,
                 (f.kinds IS NULL OR EXISTS (SELECT 1 FROM json_each(f.kinds) WHERE value = m.kind))
                 AND (f.exchanges IS NULL OR EXISTS (SELECT 1 FROM json_each(f.exchanges) WHERE value = m.exchange)), ",
            columns!(),
            " FROM outbox_messages m CROSS JOIN f WHERE m.seq > "
        ))
        .bind::<BigInt, _>(from.seq)
        .sql(" ORDER BY m.seq LIMIT ")
        .bind::<BigInt, _>(i64::from(limit.rows));
    let read = Rows::of(query.load_iter::<Row, _>(conn)?, limit)?;
    let seq = read.last.unwrap_or(from.seq);
    let Rows { entries, passed_over, exhausted, .. } = read;
    Ok(Chunk { entries, passed_over, next: Position { seq, ..from.clone() }, exhausted })
}

/// A list of names as the columns of a cursor hold it.
fn names(names: &Option<Vec<String>>) -> Option<String> {
    // A list of texts always has a JSON form.
    names.as_ref().map(|names| serde_json::to_string(names).unwrap_or_default())
}
