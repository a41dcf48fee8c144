//! A restored or copied database made its own: rows and cursors get numbers of this cluster.
//!
//! What a cursor has handed on is told by comparing stored numbers with stored numbers, which works
//! wherever they come from. Rows are of three kinds then:
//!
//! * above every cursor, or handed on by every cursor that is past them: nothing but their place
//!   counts. They get the number 3, which is visible in every snapshot. This is most of the log, and is
//!   done beforehand in pieces; a row that is marked stays what it is for every cursor, so doing it again
//!   after an interruption changes nothing.
//! * *late* for some cursor: below it and not handed on. They get the number of the last transaction
//!   of the rebase, and each cursor that has such rows a snapshot in which that one is not visible yet: so
//!   its next step finds them. A cursor that had handed some of them on hands them on again.
//!
//! New rows that producers write here meanwhile have numbers of this cluster and places above every
//! cursor, provided that the sequence is; where a copy has left it behind, it is moved, and rows that
//! got a place below a cursor are told by their time and counted as late.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};

use crate::admin::{AdminError, Order, Rebased};
use crate::store::postgres::admin::audit;

/// Rows looked at in one piece.
const PIECE: i64 = 20_000;

#[derive(QueryableByName)]
struct Marked {
    #[diesel(sql_type = BigInt)]
    marked: i64,
    #[diesel(sql_type = BigInt)]
    upto: i64,
    #[diesel(sql_type = Bool)]
    done: bool,
}

#[derive(QueryableByName)]
struct Holder {
    #[diesel(sql_type = Text)]
    owner: String,
}

#[derive(QueryableByName)]
struct Counts {
    #[diesel(sql_type = BigInt)]
    late: i64,
    #[diesel(sql_type = BigInt)]
    pending: i64,
    #[diesel(sql_type = BigInt)]
    cursors: i64,
}

/// Whether row `m` is below cursor `c` and not handed on by it, by numbers as stored. A row written
/// after the cursor last moved cannot have been handed on, whatever its place.
macro_rules! late_for {
    () => {
        "(m.seq <= c.seq AND (
             NOT (pg_visible_in_snapshot(m.xid, c.snapshot)
                  OR (c.late_snapshot IS NOT NULL AND m.seq <= c.late_seq
                      AND pg_visible_in_snapshot(m.xid, c.late_snapshot)))
             OR coalesce(m.created_at > c.advanced_at, false)))"
    };
}

/// Keeps every relay out, before the first row is renumbered: one that reads on by the numbers of before would
/// miss what is renumbered under it, and a cursor left so by an interruption is refused as another
/// cluster's. Tells who holds a cursor of this cluster, and then has changed nothing.
pub(crate) fn fence(conn: &mut PgConnection) -> QueryResult<Option<String>> {
    conn.transaction(|conn| {
        let holder: Option<Holder> = diesel::sql_query(
            "SELECT owner FROM outbox_cursors
             WHERE lease_until > clock_timestamp() AND owner IS NOT NULL
               AND system_id = (SELECT system_identifier::text FROM pg_control_system())
             ORDER BY name LIMIT 1 FOR NO KEY UPDATE",
        )
        .get_result(conn)
        .optional()?;
        if let Some(holder) = holder {
            return Ok(Some(holder.owner));
        }
        diesel::sql_query(
            "UPDATE outbox_cursors SET epoch = epoch + 1, owner = NULL, lease_until = NULL,
                 system_id = '(rebase under way)', timeline = 0",
        )
        .execute(conn)?;
        Ok(None)
    })
}

/// Gives the next rows behind `from` that are late for no cursor the number that is always visible.
/// Returns how many, and where the next piece starts; `None` when there are no more.
pub(crate) fn mark_piece(conn: &mut PgConnection, from: i64) -> QueryResult<(u64, Option<i64>)> {
    let marked: Marked = diesel::sql_query(concat!(
        "WITH piece AS MATERIALIZED (
             SELECT m.seq, m.xid, m.created_at FROM outbox_messages m WHERE m.seq > $1 ORDER BY m.seq LIMIT $2
         ), marked AS (
             UPDATE outbox_messages o SET xid = '3'
             FROM piece m
             WHERE o.seq = m.seq AND m.xid <> '3' AND NOT EXISTS (SELECT FROM outbox_cursors c WHERE ",
        late_for!(),
        ")
             RETURNING o.seq
         )
         SELECT (SELECT count(*) FROM marked) AS marked, coalesce((SELECT max(seq) FROM piece), $1) AS upto,
                (SELECT count(*) FROM piece) < $2 AS done"
    ))
    .bind::<BigInt, _>(from)
    .bind::<BigInt, _>(PIECE)
    .get_result(conn)?;
    let next = (!marked.done).then_some(marked.upto);
    Ok((marked.marked.max(0).unsigned_abs(), next))
}

/// What is left once nearly all rows are marked: the late ones, the sequence and the cursors, in one
/// transaction under a lock that keeps producers out for as long as it takes.
pub(crate) fn rebase(conn: &mut PgConnection, order: &Order) -> Result<Rebased, AdminError> {
    order.check()?;
    let rebased = conn.transaction(|conn| {
        if !order.dry_run {
            // Before the first snapshot: what was being written is committed and seen, or not there.
            diesel::sql_query("LOCK TABLE outbox_messages IN SHARE ROW EXCLUSIVE MODE")
                .execute(conn)?;
            diesel::sql_query("SELECT name FROM outbox_cursors ORDER BY name FOR UPDATE")
                .execute(conn)?;
        }
        // Remembered, because the cursors by which it is told change next.
        diesel::sql_query(concat!(
            "CREATE TEMPORARY TABLE counterfoil_late ON COMMIT DROP AS
             SELECT c.name AS cursor, m.seq FROM outbox_cursors c JOIN outbox_messages m ON m.xid > '3' AND ",
            late_for!()
        ))
        .execute(conn)?;
        let counts: Counts = diesel::sql_query(
            "SELECT (SELECT count(DISTINCT seq) FROM counterfoil_late) AS late,
                    (SELECT count(*) FROM outbox_messages m
                     WHERE m.seq > (SELECT min(seq) FROM outbox_cursors)) AS pending,
                    (SELECT count(*) FROM outbox_cursors) AS cursors",
        )
        .get_result(conn)?;
        let rebased = Rebased {
            late: counts.late.max(0).unsigned_abs(),
            pending: counts.pending.max(0).unsigned_abs(),
            cursors: counts.cursors.max(0).unsigned_abs(),
        };
        if order.dry_run {
            return Err(Outcome::DryRun(rebased));
        }
        renumber(conn)?;
        let Rebased { late, pending, cursors } = rebased;
        let detail = format!(r#"{{"cursors": {cursors}, "late": {late}, "pending": {pending}}}"#);
        audit::record(conn, order, "rebase", None, &detail)?;
        Ok(rebased)
    });
    match rebased {
        Ok(rebased) | Err(Outcome::DryRun(rebased)) => Ok(rebased),
        Err(Outcome::Failed(error)) => Err(error),
    }
}

/// Why the transaction was rolled back.
enum Outcome {
    DryRun(Rebased),
    Failed(AdminError),
}

impl From<diesel::result::Error> for Outcome {
    fn from(error: diesel::result::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<AdminError> for Outcome {
    fn from(error: AdminError) -> Self {
        Self::Failed(error)
    }
}

fn renumber(conn: &mut PgConnection) -> QueryResult<()> {
    diesel::sql_query(
        "UPDATE outbox_messages SET xid = pg_current_xact_id()
         WHERE seq IN (SELECT seq FROM counterfoil_late)",
    )
    .execute(conn)?;
    // By the index on xid: most of the log has the number already. Rows that came since the last piece, and those of a piece that was never made.
    diesel::sql_query(
        "UPDATE outbox_messages SET xid = '3'
         WHERE xid > '3' AND seq NOT IN (SELECT seq FROM counterfoil_late)",
    )
    .execute(conn)?;
    // A place at or below a cursor must not be given out.
    diesel::sql_query(
        "SELECT setval('outbox_messages_seq_seq', greatest(
             (SELECT last_value FROM outbox_messages_seq_seq),
             (SELECT max(seq) FROM outbox_messages), (SELECT max(seq) FROM outbox_cursors), 1))",
    )
    .execute(conn)?;
    // As if taken a moment before this transaction and a moment after it. The latter's list is empty, so
    // transactions that are open now count as visible in it; they cannot have rows here, for the lock
    // has waited for them, and what they write yet gets a place above the cursor.
    diesel::sql_query(
        "UPDATE outbox_cursors c
         SET snapshot = CASE WHEN late THEN before ELSE after END, late_seq = NULL, late_snapshot = NULL,
             system_id = NULL, timeline = NULL, owner = NULL, lease_until = NULL, epoch = epoch + 1,
             advanced_at = clock_timestamp()
         FROM (SELECT n.name, EXISTS (SELECT FROM counterfoil_late l WHERE l.cursor = n.name) AS late,
                      (x.xid || ':' || x.xid || ':')::pg_snapshot AS before,
                      ((x.xid::text::numeric + 1) || ':' || (x.xid::text::numeric + 1) || ':')::pg_snapshot AS after
               FROM outbox_cursors n, (SELECT pg_current_xact_id() AS xid) x) k
         WHERE k.name = c.name",
    )
    .execute(conn)?;
    Ok(())
}
