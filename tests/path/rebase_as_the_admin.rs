//! `relay rebase` with the rights that `relay roles` gives an operator, in a database where not everybody may
//! make temporary tables.

use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Text};
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use support::database::Database;
use support::process::Process;
use support::roles::LeastPrivileged;

#[derive(QueryableByName)]
struct Rebased {
    #[diesel(sql_type = BigInt)]
    ours: i64,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Text)]
    reason: String,
}

#[test]
fn it_has_every_right_it_needs() {
    let database = Database::postgres();
    let mut owner = database.pg();
    // As hardened databases are.
    owner
        .batch_execute(
            "DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$",
        )
        .expect("revokes");
    let roles = LeastPrivileged::on(&database);
    // Of another cluster, with a late row below the cursor.
    owner
        .batch_execute(
            "INSERT INTO outbox_messages (kind, operation, payload) VALUES ('k', '1', ''), ('k', '2', ''), ('k', '3', '');
             UPDATE outbox_messages SET xid = '5' WHERE seq = 1;
             UPDATE outbox_cursors SET seq = 2, snapshot = '5:1000000:5'::pg_snapshot, system_id = '1', timeline = 1",
        )
        .expect("copies");
    let env = [("RELAY_DATABASE_URL", &roles.admin[..]), ("RELAY_ACTOR", "anna@desk")];
    for dry in [true, false] {
        let sure = if dry { "--dry-run" } else { "--yes" };
        let mut rebase = Process::start("relay", &["rebase", sure, "--reason", "restored"], &env);
        assert!(rebase.finish().success(), "{}", rebase.output);
        assert!(
            rebase.output.contains("1 below one that it had not handed on")
                || rebase.output.contains("1 messages above"),
            "{}",
            rebase.output
        );
    }
    let rebased: Rebased = sql_query(
        "SELECT (SELECT count(*) FROM outbox_cursors WHERE system_id IS NULL) AS ours, role, reason
         FROM outbox_audit WHERE action = 'rebase'",
    )
    .get_result(&mut owner)
    .expect("recorded");
    assert_eq!((rebased.ours, &rebased.reason[..]), (1, "restored"));
    assert!(rebased.role.ends_with("_admin_login"), "{}", rebased.role);
}
