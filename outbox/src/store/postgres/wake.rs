use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{Bool, Oid};
use serde_json::json;

use super::admin::audit::record;
use crate::admin::{AdminError, Order};

#[derive(QueryableByName)]
struct Is {
    #[diesel(sql_type = Bool)]
    so: bool,
}

#[derive(QueryableByName)]
struct Table {
    #[diesel(sql_type = Oid)]
    oid: u32,
}

/// What the trigger and the relay agree upon beside the table's number: the first half of the lock's key.
/// Any fixed number will do.
macro_rules! class {
    () => {
        "1131376461"
    };
}

/// Whether every insert is asked whether a relay sleeps.
macro_rules! is_on {
    () => {
        "EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'outbox_messages'::regclass
                 AND tgname = 'outbox_messages_wake' AND tgenabled IN ('O', 'A'))"
    };
}
pub(super) use is_on;

/// The lock is taken at the insert and kept to the end of the transaction, for a NOTIFY decided upon at the
/// insert would else be missing where a relay falls asleep between that and the commit. Neither side ever
/// waits for the other.
const ON: &str = concat!(
    "CREATE OR REPLACE FUNCTION outbox_wake() RETURNS trigger
     LANGUAGE plpgsql
     AS $$
     BEGIN
         -- A relay that sleeps holds this lock against us, and is told. Else no relay falls asleep before this
         -- transaction has ended.
         IF NOT pg_catalog.pg_try_advisory_xact_lock_shared(",
    class!(),
    ", TG_RELID::pg_catalog.int4) THEN
             PERFORM pg_catalog.pg_notify(pg_catalog.concat('counterfoil_', TG_RELID), '');
         END IF;
         RETURN NULL;
     END
     $$;
     DROP TRIGGER IF EXISTS outbox_messages_wake ON outbox_messages;
     CREATE TRIGGER outbox_messages_wake AFTER INSERT ON outbox_messages
         FOR EACH STATEMENT EXECUTE FUNCTION outbox_wake()"
);

const OFF: &str = "DROP TRIGGER IF EXISTS outbox_messages_wake ON outbox_messages;
     DROP FUNCTION IF EXISTS outbox_wake()";

/// Subscribes the session. From PostgreSQL 14 on the server ends it when nothing was asked for a minute: a frozen
/// relay must not keep producers notifying it.
pub(crate) fn listen(conn: &mut PgConnection) -> QueryResult<()> {
    let table: Table =
        diesel::sql_query("SELECT 'outbox_messages'::regclass::oid AS oid").get_result(conn)?;
    conn.batch_execute(&format!("LISTEN counterfoil_{}", table.oid))?;
    conn.batch_execute(
        "SELECT set_config('application_name', left(current_setting('application_name'), 55) || ' wake-up', false);
         SELECT set_config('idle_session_timeout', '60s', false)
         WHERE current_setting('server_version_num')::int >= 140000",
    )
}

/// What has come in by itself; asks the server nothing.
pub(crate) fn heard(conn: &mut PgConnection) -> QueryResult<bool> {
    let mut any = false;
    for notification in conn.notifications_iter() {
        notification?;
        any = true;
    }
    Ok(any)
}

/// Takes the lock that transactions which were not told to notify hold to their end, or has it already.
pub(crate) fn watch(conn: &mut PgConnection) -> QueryResult<bool> {
    let is: Is = diesel::sql_query(concat!(
        "SELECT CASE WHEN ",
        is_on!(),
        " THEN pg_try_advisory_lock(",
        class!(),
        ", 'outbox_messages'::regclass::oid::int) ELSE false END AS so"
    ))
    .get_result(conn)?;
    Ok(is.so)
}

/// All of them: each [`watch`] has taken it once more.
pub(crate) fn unwatch(conn: &mut PgConnection) -> QueryResult<()> {
    conn.batch_execute("SELECT pg_advisory_unlock_all()")
}

/// Makes or drops the trigger. Its lock on the table waits for transactions that have written to it, and new
/// ones wait behind it meanwhile: so only for a moment.
pub(crate) fn set_wakeup(
    conn: &mut PgConnection,
    on: bool,
    order: &Order,
) -> Result<bool, AdminError> {
    order.check()?;
    let changed = conn.transaction(|conn| {
        let is: Is = diesel::sql_query(concat!("SELECT ", is_on!(), " AS so")).get_result(conn)?;
        if is.so == on || order.dry_run {
            return Ok(is.so != on);
        }
        conn.batch_execute("SET LOCAL lock_timeout = '2s'")?;
        conn.batch_execute(if on { ON } else { OFF })?;
        let action = if on { "wakeup.on" } else { "wakeup.off" };
        record(conn, order, action, None, &json!({}).to_string())?;
        Ok(true)
    });
    changed.map_err(|error| match error {
        AdminError::Database(error) => named(error),
        other => other,
    })
}

fn named(error: Error) -> AdminError {
    match db::classify(&error) {
        db::Class::Denied => AdminError::NotOwner(error),
        db::Class::Contention => AdminError::TableBusy(error),
        _ => AdminError::Database(error),
    }
}
