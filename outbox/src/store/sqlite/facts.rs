use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Text};
use diesel::sqlite::SqliteConnection;

use super::cursor::now;
use crate::admin::Facts;
use crate::row::time_of;

#[derive(QueryableByName)]
struct Library {
    #[diesel(sql_type = Text)]
    version: String,
    #[diesel(sql_type = BigInt)]
    now: i64,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Binary)]
    exchange: Vec<u8>,
}

/// What a check of the installation wants to know. A file has no roles, no cluster and no server.
pub(crate) fn facts(conn: &mut SqliteConnection) -> QueryResult<Facts> {
    let library: Library =
        diesel::sql_query(concat!("SELECT sqlite_version() AS version, ", now!(), " AS now"))
            .get_result(conn)?;
    Ok(Facts {
        server: format!("SQLite {}", library.version),
        now: time_of(library.now),
        identity: None,
        next_xid: None,
        highest_cursor_xid: None,
        rows_ahead: false,
        standby: false,
        autovacuum: true,
        collation: Some(("none".to_owned(), "none".to_owned())),
        encrypted: None,
        wakeup: None,
        prepares: false,
        role: String::new(),
        rights: Vec::new(),
    })
}

/// The exchanges that pending and held messages go to.
pub(crate) fn exchanges(
    conn: &mut SqliteConnection,
    cursor: &str,
    rows: u32,
) -> QueryResult<Vec<String>> {
    let names: Vec<Name> = diesel::sql_query(
        "SELECT DISTINCT CAST(exchange AS BLOB) AS exchange FROM (
             SELECT * FROM (SELECT exchange FROM outbox_pending WHERE cursor = ?1 ORDER BY seq LIMIT ?2)
             UNION ALL
             SELECT * FROM (SELECT m.exchange FROM outbox_holds h JOIN outbox_messages m USING (seq)
                            WHERE h.cursor = ?1 ORDER BY h.seq LIMIT ?2))
         ORDER BY 1",
    )
    .bind::<Text, _>(cursor)
    .bind::<BigInt, _>(i64::from(rows))
    .load(conn)?;
    Ok(names.into_iter().map(|name| String::from_utf8_lossy(&name.exchange).into_owned()).collect())
}
