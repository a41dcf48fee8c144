use diesel::connection::LoadConnection;
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, RunQueryDsl};

use crate::effect::admin::{Count, Effect, Selection};
use crate::store::effects_seen::{
    CountColumns, CountValues, SeenColumns, SeenValues, count, fitting, seen,
};
use crate::store::statement::{Bind, Statement};

/// Effects, in order of their numbers.
pub(crate) fn list_effects<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    which: &Selection,
) -> QueryResult<Vec<Effect>> {
    let rows = Statement::<12, SeenColumns>::new(
        "SELECT id, consumer, scope, operation, effect, provider_key, policy, state,
                attempts, asks, owner, result, error,
                created_at, attempted_at, lease_until, ask_at, unknown_since, review_since, settled_at,
                late_at, late_result, decided_by, decided_why, decided_at
         FROM inbox_effects
         WHERE (? IS NULL OR id = ?) AND (? IS NULL OR consumer = ?) AND (? IS NULL OR effect = ?)
           AND (? IS NULL OR state = ?) AND (NOT ? OR review_since IS NOT NULL)
           AND (NOT ? OR late_at IS NOT NULL) AND id > ?
         ORDER BY id LIMIT ?",
        fitting(which),
    )
    .load::<SeenValues>(conn)?;
    rows.into_iter().map(seen).collect()
}

/// How many effects there are, by consumer, name and state.
pub(crate) fn count_effects<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    consumer: Option<&str>,
) -> QueryResult<Vec<Count>> {
    let rows = Statement::<2, CountColumns>::new(
        "SELECT consumer, effect, state, review_since IS NOT NULL, count(*), min(created_at)
         FROM inbox_effects WHERE (? IS NULL OR consumer = ?)
         GROUP BY consumer, effect, state, review_since IS NOT NULL
         ORDER BY consumer, effect, state, review_since IS NOT NULL",
        [Bind::MaybeText(consumer), Bind::MaybeText(consumer)],
    )
    .load::<CountValues>(conn)?;
    rows.into_iter().map(count).collect()
}

/// Records what is about to be decided, and by whom. Without the result, which can be anybody's data.
pub(crate) fn record_effect<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    id: i64,
    action: &str,
    actor: &str,
    reason: &str,
) -> QueryResult<()> {
    Statement::<4>::new(
        "INSERT INTO inbox_audit (actor, action, consumer, reason, detail)
         SELECT ?, ?, consumer, ?,
                json_object('id', id, 'scope', scope, 'operation', operation, 'effect', effect,
                                   'provider_key', provider_key, 'state', state, 'policy', policy,
                                   'attempts', attempts, 'asks', asks, 'error', error, 'late', json(CASE WHEN late_at IS NULL THEN 'false' ELSE 'true' END))
         FROM inbox_effects WHERE id = ?",
        [Bind::Text(actor), Bind::Text(action), Bind::Text(reason), Bind::BigInt(id)],
    )
    .execute(conn)?;
    Statement::<3>::new(
        "UPDATE inbox_effects SET decided_by = ?, decided_why = ?, decided_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) WHERE id = ?",
        [Bind::Text(actor), Bind::Text(reason), Bind::BigInt(id)],
    )
    .execute(conn)
    .map(drop)
}
