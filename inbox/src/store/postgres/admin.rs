use bytes::Bytes;
use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel::{OptionalExtension, QueryResult, RunQueryDsl};
use message::Headers;

use crate::admin::{AuditEntry, ParkedCount, ParkedInfo, Picked, Selection};
use crate::store::admin::{self, AuditColumns, AuditValues, InfoColumns, InfoValues};
use crate::store::statement::{Bind, Statement};

/// The rows of a [`Selection`].
macro_rules! fitting {
    () => {
        " FROM inbox_parked
         WHERE (? IS NULL OR id IN (SELECT CAST(value AS bigint) FROM jsonb_array_elements_text(CAST(? AS jsonb))))
           AND (? IS NULL OR consumer = ?) AND (? IS NULL OR state = ?) AND (? IS NULL OR reason = ?)
           AND (? IS NULL OR ordering_key = ?) AND id > ? ORDER BY id LIMIT ?"
    };
}

/// Parked messages, in order of their numbers.
pub(crate) fn list<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    which: &Selection,
) -> QueryResult<Vec<ParkedInfo>> {
    let ids = which.ids_json();
    let rows = Statement::<12, InfoColumns>::new(
        concat!(
            "SELECT id, consumer, state, reason, detail, attempts, starts, deliveries,
                    message_id, kind, scope, operation, ordering_key,
                    exchange, routing_key, CAST(octet_length(payload) AS bigint),
                    CAST(extract(epoch FROM parked_at) * 1000000 AS bigint),
                    CAST(extract(epoch FROM last_parked_at) * 1000000 AS bigint),
                    CAST(extract(epoch FROM not_before) * 1000000 AS bigint),
                    state = 'retry' AND starts > 0 AND not_before > clock_timestamp()",
            fitting!()
        ),
        admin::fitting(which, ids.as_deref()),
    )
    .load::<InfoValues>(conn)?;
    rows.into_iter().map(admin::info).collect()
}

/// Headers, content type and body of a parked message.
pub(crate) fn content<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    id: i64,
) -> QueryResult<Option<(Headers, Option<String>, Bytes)>> {
    Statement::<1, (Text, Nullable<Text>, Binary)>::new(
        "SELECT CAST(headers AS text), content_type, payload FROM inbox_parked WHERE id = ?",
        [Bind::BigInt(id)],
    )
    .get_result(conn)
    .optional()?
    .map(admin::content)
    .transpose()
}

/// How many messages are parked, by consumer, state and reason.
pub(crate) fn counts<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: Option<&str>,
) -> QueryResult<Vec<ParkedCount>> {
    let rows = Statement::<2, (Text, Text, Text, BigInt, BigInt)>::new(
        "SELECT consumer, state, reason, count(*), CAST(extract(epoch FROM min(parked_at)) * 1000000 AS bigint)
         FROM inbox_parked WHERE (? IS NULL OR consumer = ?)
         GROUP BY consumer, state, reason ORDER BY consumer, state, reason",
        [Bind::MaybeText(consumer), Bind::MaybeText(consumer)],
    )
    .load(conn)?;
    rows.into_iter().map(admin::count).collect()
}

/// Locks what is about to be changed, in order of the numbers. Who parks behind one of these in this
/// moment has committed before, and is seen by what follows.
pub(crate) fn pick<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    which: &Selection,
) -> QueryResult<Vec<Picked>> {
    let ids = which.ids_json();
    let rows = Statement::<12, (BigInt, Text, Text, Nullable<Text>)>::new(
        concat!("SELECT id, consumer, state, ordering_key", fitting!(), " FOR UPDATE"),
        admin::fitting(which, ids.as_deref()),
    )
    .load(conn)?;
    rows.into_iter().map(admin::picked).collect()
}

/// The first parked message of an ordering key, where it stands before this one.
pub(crate) fn head_before<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    consumer: &str,
    key: &str,
    id: i64,
) -> QueryResult<Option<i64>> {
    Statement::<3, BigInt>::new(
        "SELECT id FROM inbox_parked WHERE consumer = ? AND ordering_key = ? AND id < ? ORDER BY id LIMIT 1",
        [Bind::Text(consumer), Bind::Text(key), Bind::BigInt(id)],
    )
    .get_result(conn)
    .optional()
}

/// Makes messages due now. A retry that is under way loses its fence.
pub(crate) fn make_due<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    ids: &str,
) -> QueryResult<()> {
    Statement::<1>::new(
        "UPDATE inbox_parked SET state = 'retry', not_before = clock_timestamp(), starts = 0, epoch = epoch + 1,
                early_since = NULL, forced = forced OR reason = 'replay_refused'
         WHERE id IN (SELECT CAST(value AS bigint) FROM jsonb_array_elements_text(CAST(? AS jsonb)))",
        [Bind::Text(ids)],
    )
    .execute(conn)
    .map(drop)
}

/// Takes messages away for good.
pub(crate) fn remove<C: LoadConnection<Backend = Pg>>(conn: &mut C, ids: &str) -> QueryResult<()> {
    Statement::<1>::new(
        "DELETE FROM inbox_parked
         WHERE id IN (SELECT CAST(value AS bigint) FROM jsonb_array_elements_text(CAST(? AS jsonb)))",
        [Bind::Text(ids)],
    )
    .execute(conn)
    .map(drop)
}

/// Records what is about to be done to each of these messages.
pub(crate) fn record<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    ids: &str,
    action: &str,
    actor: &str,
    reason: &str,
) -> QueryResult<()> {
    Statement::<4>::new(
        "INSERT INTO inbox_audit (actor, action, consumer, reason, detail)
         SELECT ?, ?, consumer, ?,
                jsonb_build_object('id', id, 'state', state, 'parked_for', reason, 'attempts', attempts,
                                   'message_id', message_id, 'kind', kind, 'scope', scope, 'operation', operation,
                                   'ordering_key', ordering_key, 'digest', encode(digest, 'hex'))
         FROM inbox_parked
         WHERE id IN (SELECT CAST(value AS bigint) FROM jsonb_array_elements_text(CAST(? AS jsonb))) ORDER BY id",
        [Bind::Text(actor), Bind::Text(action), Bind::Text(reason), Bind::Text(ids)],
    )
    .execute(conn)
    .map(drop)
}

/// The last changes, newest first.
pub(crate) fn audit<C: LoadConnection<Backend = Pg>>(
    conn: &mut C,
    limit: i64,
) -> QueryResult<Vec<AuditEntry>> {
    let rows = Statement::<1, AuditColumns>::new(
        "SELECT id, CAST(extract(epoch FROM at) * 1000000 AS bigint), actor, role, action, consumer, reason,
                CAST(detail AS text)
         FROM inbox_audit ORDER BY id DESC LIMIT ?",
        [Bind::BigInt(limit)],
    )
    .load::<AuditValues>(conn)?;
    Ok(rows.into_iter().map(admin::entry).collect())
}
