use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::sqlite::SqliteConnection;

use super::cursor::now;
use crate::admin::{Backlog, Vitals};

#[derive(QueryableByName)]
struct Waiting {
    #[diesel(sql_type = BigInt)]
    messages: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    oldest: Option<i64>,
}

/// How far a cursor is behind. The bound is what keeps it short: there are no timeouts here.
pub(crate) fn backlog(
    conn: &mut SqliteConnection,
    cursor: &str,
    bound: u32,
    _within: Duration,
) -> QueryResult<Backlog> {
    let waiting: Waiting = diesel::sql_query(concat!(
        "SELECT count(*) AS messages, ",
        now!(),
        " - min(created_at) AS oldest FROM (SELECT created_at FROM outbox_pending WHERE cursor = ?1 LIMIT ?2)"
    ))
    .bind::<Text, _>(cursor)
    .bind::<BigInt, _>(i64::from(bound) + 1)
    .get_result(conn)?;
    let bound = i64::from(bound);
    Ok(Backlog {
        messages: waiting.messages.min(bound),
        more: waiting.messages > bound,
        oldest: waiting.oldest.map(|micros| Duration::from_micros(micros.max(0).unsigned_abs())),
    })
}

/// Nothing: no vacuum waits for anybody here.
pub(crate) fn vitals(_conn: &mut SqliteConnection, _within: Duration) -> QueryResult<Vitals> {
    Ok(Vitals::default())
}
