//! Paths that name no database, and files that somebody else writes to, with the real program.

use std::process::Command;

use diesel::connection::SimpleConnection;
use support::commands::{done, refused, says};
use support::database::Database;
use support::process::binary;

/// SQLite would make an empty database of any name.
#[test]
fn a_mistyped_path_is_told_and_left_alone() {
    let database = Database::empty_sqlite();
    for command in [&["status"][..], &["doctor"], &["effects", "list"], &["run"]] {
        says(
            &refused(&database, command),
            &["there is no database", &database.url, "relay migrate"],
        );
    }
    says(&refused(&database, &["migrate", "--status"]), &["there is no database"]);
    assert!(!std::path::Path::new(&database.url).exists());
    // As `docker run --env-file` hands on what stands in quotes.
    let quoted = Command::new(binary("relay"))
        .arg("status")
        .env("RELAY_DATABASE_URL", "\"postgres://app:canary@db.example/shop\"")
        .current_dir(std::env::temp_dir())
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&quoted.stderr);
    assert!(!quoted.status.success() && !text.contains("canary"), "{text}");
    says(&done(&database, &["migrate"]), &["applied"]);
    done(&database, &["status"]);
}

#[test]
fn a_database_that_another_process_writes_to_is_to_be_waited_for() {
    let database = Database::sqlite();
    let mut writer = database.sqlite_pool(1).get::<()>().expect("opens");
    writer.batch_execute("BEGIN IMMEDIATE").expect("takes the write lock");
    let refused = refused(&database, &["migrate"]);
    says(&refused, &["database is locked", "try again"]);
    assert_eq!(refused.matches("database is locked").count(), 1, "{refused}");
    assert!(!refused.contains("must own"), "{refused}");
}
