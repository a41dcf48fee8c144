use std::time::Duration;

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::result::Error;
use diesel::sql_types::Integer;
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};

use crate::{CallError, Db, Settings};

/// Other clients can take the server connections in between; several tries make a miss unlikely.
const TRIES: u32 = 5;

/// One unit of work that leaves nothing in the session and asks nothing of it.
pub(crate) fn unit<T, E>(
    conn: &mut PgConnection,
    settings: &Settings,
    work: impl FnOnce(&mut PgConnection) -> Result<T, E>,
) -> Result<T, CallError<E>> {
    // In one piece: a round trip of its own for each setting would double the cost of short work.
    let limit = |of: Duration| of.as_millis();
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}; \
         SET LOCAL idle_in_transaction_session_timeout = {}",
        limit(settings.statement_timeout),
        limit(settings.lock_timeout),
        limit(settings.idle_in_transaction_timeout),
    );
    AnsiTransactionManager::begin_transaction_sql(conn, &begin).map_err(CallError::Begin)?;
    let ended = match work(conn) {
        // COMMIT alone answers well in a transaction that an unreported error has doomed, and rolls
        // back. A statement before it does not, and costs no round trip.
        Ok(value) => match conn.batch_execute("SELECT 1; COMMIT") {
            Ok(()) => return Ok(value),
            Err(error) => CallError::Commit(error),
        },
        Err(error) => CallError::Work(error),
    };
    // Where this fails the connection is dropped, and the server rolls back.
    let _ = AnsiTransactionManager::rollback_transaction(conn);
    Err(ended)
}

#[derive(QueryableByName)]
struct Backend {
    #[diesel(sql_type = Integer)]
    pid: i32,
}

/// Whether the address leads to a pooler that gives out server connections per transaction or
/// statement: one connection of ours was served by two server processes, or two by one. A busy pooler
/// can go unnoticed; a direct connection is never taken for one. Blocks; takes two connections of the
/// pool.
///
/// # Errors
/// [`CallError::PoolExhausted`], or the database's error.
pub fn pooler_suspected(db: &Db<PgConnection>) -> Result<bool, CallError<Error>> {
    let (mut first, mut second) = (db.get()?, db.get()?);
    for _ in 0..TRIES {
        let before = served_by(&mut first).map_err(CallError::Work)?;
        // Twice: one that gives them out in turn would, of two, always give the same to each of us.
        if served_by(&mut first).map_err(CallError::Work)? != before {
            return Ok(true);
        }
        // Its transaction keeps hold of the server connection that the first one has given back.
        let other = match held_by(&mut second) {
            Ok(other) => other,
            Err(error) if is_statement_pooling(&error) => return Ok(true),
            Err(error) => return Err(CallError::Work(error)),
        };
        let after = served_by(&mut first);
        let ended = second.batch_execute("COMMIT");
        let after = after.map_err(CallError::Work)?;
        ended.map_err(CallError::Work)?;
        if other == before || after != before {
            return Ok(true);
        }
    }
    Ok(false)
}

fn served_by(conn: &mut PgConnection) -> Result<i32, Error> {
    sql_query("SELECT pg_backend_pid() AS pid").get_result::<Backend>(conn).map(|found| found.pid)
}

fn held_by(conn: &mut PgConnection) -> Result<i32, Error> {
    conn.batch_execute("BEGIN")?;
    served_by(conn)
}

fn is_statement_pooling(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(_, info) if info.message().contains("statement pooling mode"))
}
