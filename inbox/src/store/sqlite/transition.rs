use diesel::connection::LoadConnection;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel::{OptionalExtension, QueryResult, RunQueryDsl};

use crate::store::statement::{Bind, Statement};
use crate::store::transition::{standing_row, transition_row};
use crate::store::{Move, NewTransition, Standing, Transition};

/// Where an entity stands; `None` where it has never moved.
pub(crate) fn standing<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    machine: &str,
    entity: &str,
) -> QueryResult<Option<Standing>> {
    let found = Statement::<2, (Text, BigInt, BigInt)>::new(
        "SELECT state, version, changed_at
         FROM inbox_states WHERE machine = ? AND entity = ?",
        [Bind::Text(machine), Bind::Text(entity)],
    )
    .get_result(conn)
    .optional()?;
    Ok(found.map(standing_row))
}

/// Makes the first move of an entity; false where somebody else has made it.
pub(crate) fn first_move<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    to: &Move<'_>,
) -> QueryResult<bool> {
    Statement::<3>::new(
        "INSERT INTO inbox_states (machine, entity, state, version) VALUES (?, ?, ?, 1) ON CONFLICT DO NOTHING",
        [Bind::Text(to.machine), Bind::Text(to.entity), Bind::Text(to.to)],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Moves an entity that has not moved since it was read; false where it has, or somebody has set its
/// state by hand.
pub(crate) fn next_move<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    to: &Move<'_>,
) -> QueryResult<bool> {
    Statement::<5>::new(
        "UPDATE inbox_states SET state = ?, version = version + 1, changed_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER)
         WHERE machine = ? AND entity = ? AND version = ? AND state = ?",
        [
            Bind::Text(to.to),
            Bind::Text(to.machine),
            Bind::Text(to.entity),
            Bind::BigInt(to.version),
            Bind::Text(to.from),
        ],
    )
    .execute(conn)
    .map(|rows| rows == 1)
}

/// Writes a line of history.
pub(crate) fn record<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    row: &NewTransition<'_>,
) -> QueryResult<()> {
    Statement::<11>::new(
        "INSERT INTO inbox_transitions (machine, entity, version, event, from_state, to_state, verdict,
                                        consumer, scope, operation, message_id)
         VALUES (?, ?, nullif(?, -1), ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            Bind::Text(row.machine),
            Bind::Text(row.entity),
            Bind::BigInt(row.version_or_none()),
            Bind::Text(row.event),
            Bind::Text(row.from),
            Bind::Text(row.to),
            Bind::Text(row.verdict),
            Bind::MaybeText(row.cause.consumer.as_deref()),
            Bind::MaybeText(row.cause.scope.as_deref()),
            Bind::MaybeText(row.cause.operation.as_deref()),
            Bind::MaybeText(row.cause.message_id.as_deref()),
        ],
    )
    .execute(conn)
    .map(drop)
}

/// The decisions about an entity with a greater number than `after`, in order of their numbers.
pub(crate) fn history<C: LoadConnection<Backend = Sqlite>>(
    conn: &mut C,
    machine: &str,
    entity: &str,
    after: i64,
    limit: i64,
) -> QueryResult<Vec<Transition>> {
    type Columns = (
        (BigInt, Nullable<BigInt>, Text, Text, Text, Text),
        (Nullable<Text>, Nullable<Text>, Nullable<Text>, Nullable<Text>),
        BigInt,
    );
    let rows = Statement::<4, Columns>::new(
        "SELECT id, version, event, from_state, to_state, verdict, consumer, scope, operation, message_id, at
         FROM inbox_transitions WHERE machine = ? AND entity = ? AND id > ? ORDER BY id LIMIT ?",
        [Bind::Text(machine), Bind::Text(entity), Bind::BigInt(after), Bind::BigInt(limit)],
    )
    .load(conn)?;
    Ok(rows.into_iter().map(transition_row).collect())
}
