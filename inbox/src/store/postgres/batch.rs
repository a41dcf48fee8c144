use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::sql_types::Text;
use diesel::{QueryResult, RunQueryDsl};

use crate::Consumer;
use crate::store::statement::{Bind, Statement};

/// Claims several operations, in the order of their keys so that two batches cannot wait for each other;
/// returns scope and id of those that are ours.
pub(crate) fn claim_all<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    claims: &str,
) -> QueryResult<Vec<(String, String)>> {
    Statement::<2, (Text, Text)>::new(
        "INSERT INTO inbox_operations (consumer, scope, operation, fingerprint, message_id)
         SELECT CAST(? AS text), r.scope, r.operation, decode(r.fingerprint, 'hex'), r.message_id
         FROM json_to_recordset(CAST(? AS json))
              AS r (scope text, operation text, fingerprint text, message_id text)
         WHERE true ORDER BY r.scope, r.operation
         ON CONFLICT DO NOTHING
         RETURNING scope, operation",
        [Bind::Text(consumer.0), Bind::Text(claims)],
    )
    .load(conn)
}

/// Keeps the results of several operations, and when they were done; returns how many.
pub(crate) fn store_results<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    results: &str,
) -> QueryResult<usize> {
    Statement::<2>::new(
        "UPDATE inbox_operations AS o SET result = nullif(r.result, 'null'), verdict = r.verdict,
                finished_at = clock_timestamp()
         FROM json_to_recordset(CAST(? AS json))
              AS r (scope text, operation text, result text, verdict text)
         WHERE o.consumer = ? AND o.scope = r.scope AND o.operation = r.operation",
        [Bind::Text(results), Bind::Text(consumer.0)],
    )
    .execute(conn)
}

/// Those of several ordering keys under which something is parked that others wait for.
pub(crate) fn blocked_keys<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Consumer<'_>,
    keys: &str,
    skip: bool,
) -> QueryResult<Vec<String>> {
    Statement::<3, Text>::new(
        concat!(
            "SELECT DISTINCT ordering_key FROM inbox_parked
             WHERE consumer = ? AND ordering_key IN (SELECT json_array_elements_text(CAST(? AS json)))
               AND (state = 'behind' OR ",
            holding_up!(""),
            ")"
        ),
        [Bind::Text(consumer.0), Bind::Text(keys), Bind::Integer(i32::from(skip))],
    )
    .load(conn)
}
