use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};

use crate::admin::{AdminError, AuditEntry, Order};
use crate::row::time_of;

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    at: i64,
    #[diesel(sql_type = Text)]
    actor: String,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Text)]
    action: String,
    #[diesel(sql_type = Nullable<Text>)]
    cursor: Option<String>,
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = Text)]
    detail: String,
}

/// The last changes that operators made, newest first.
pub(crate) fn audit(conn: &mut PgConnection, limit: u32) -> QueryResult<Vec<AuditEntry>> {
    let lines: Vec<Line> = diesel::sql_query(
        "SELECT id, (extract(epoch FROM at) * 1000000)::bigint AS at, actor, role, action, cursor, reason,
                detail::text AS detail
         FROM outbox_audit ORDER BY id DESC LIMIT $1",
    )
    .bind::<BigInt, _>(i64::from(limit))
    .load(conn)?;
    Ok(lines
        .into_iter()
        .map(|line| AuditEntry {
            id: line.id,
            at: time_of(line.at),
            actor: line.actor,
            role: line.role,
            action: line.action,
            cursor: line.cursor,
            reason: line.reason,
            detail: line.detail,
        })
        .collect())
}

/// Records one change.
pub(crate) fn record(
    conn: &mut PgConnection,
    order: &Order,
    action: &str,
    cursor: Option<&str>,
    detail: &str,
) -> Result<(), AdminError> {
    order.check()?;
    diesel::sql_query(
        "INSERT INTO outbox_audit (actor, action, cursor, reason, detail) VALUES ($1, $2, $3, $4, $5::text::jsonb)",
    )
    .bind::<Text, _>(&order.actor)
    .bind::<Text, _>(action)
    .bind::<Nullable<Text>, _>(cursor)
    .bind::<Text, _>(&order.reason)
    .bind::<Text, _>(detail)
    .execute(conn)?;
    Ok(())
}
