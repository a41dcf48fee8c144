use diesel::connection::LoadConnection;
use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, RunQueryDsl};

use crate::Consumer;
use crate::store::statement::{Bind, Statement};

/// Claims several operations, in the order of their keys so that two batches cannot wait for each other;
/// returns scope and id of those that are ours.
pub(crate) fn claim_all<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    claims: &str,
) -> QueryResult<Vec<(String, String)>> {
    Statement::<2, (Text, Text)>::new(
        "INSERT INTO inbox_operations (consumer, scope, operation, fingerprint, message_id)
         SELECT ?, json_extract(value, '$.scope'), json_extract(value, '$.operation'),
                unhex(json_extract(value, '$.fingerprint')), json_extract(value, '$.message_id')
         FROM json_each(?)
         WHERE true ORDER BY 2, 3
         ON CONFLICT DO NOTHING
         RETURNING scope, operation",
        [Bind::Text(consumer.0), Bind::Text(claims)],
    )
    .load(conn)
}

/// Keeps the results of several operations, and when they were done; returns how many.
pub(crate) fn store_results<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    results: &str,
) -> QueryResult<usize> {
    Statement::<2>::new(
        "UPDATE inbox_operations AS o SET result = nullif(r.result, 'null'), verdict = r.verdict,
                finished_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
         FROM (SELECT json_extract(value, '$.scope') AS scope, json_extract(value, '$.operation') AS operation,
                      json_extract(value, '$.result') AS result, json_extract(value, '$.verdict') AS verdict
               FROM json_each(?)) AS r
         WHERE o.consumer = ? AND o.scope = r.scope AND o.operation = r.operation",
        [Bind::Text(results), Bind::Text(consumer.0)],
    )
    .execute(conn)
}

/// Those of several ordering keys under which something is parked that others wait for.
pub(crate) fn blocked_keys<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    keys: &str,
    skip: bool,
) -> QueryResult<Vec<String>> {
    Statement::<3, Text>::new(
        concat!(
            "SELECT DISTINCT ordering_key FROM inbox_parked
             WHERE consumer = ? AND ordering_key IN (SELECT value FROM json_each(?))
               AND (state = 'behind' OR ",
            holding_up!(""),
            ")"
        ),
        [Bind::Text(consumer.0), Bind::Text(keys), Bind::Integer(i32::from(skip))],
    )
    .load(conn)
}
