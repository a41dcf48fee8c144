//! `relay replay` with the real program, on both databases.

use std::process::Output;

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, SqliteConnection};
use serde_json::Value;
use support::broker::{Corner, rabbitmq};
use support::commands::{self, says};
use support::database::Database;

macro_rules! on_both {
    ($($scenario:ident),+ $(,)?) => {
        mod postgres { $(#[tokio::test(flavor = "multi_thread")] async fn $scenario() {
            super::$scenario(&support::database::Database::postgres()).await;
        })+ }
        mod sqlite { $(#[tokio::test(flavor = "multi_thread")] async fn $scenario() {
            super::$scenario(&support::database::Database::sqlite()).await;
        })+ }
    };
}

fn replay(database: &Database, args: &[&str]) -> Output {
    commands::relay(database, &[&["replay"], args].concat())
}

#[track_caller]
fn done(database: &Database, args: &[&str]) -> String {
    commands::done(database, &[&["replay"], args].concat())
}

#[track_caller]
fn refused(database: &Database, args: &[&str]) -> String {
    commands::refused(database, &[&["replay"], args].concat())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Payments 1 to 3 and a refund, of which the first is gone.
fn history(database: &Database) {
    let postgres = database.url.starts_with("postgres");
    let payload = if postgres { "convert_to('{}', 'UTF8')" } else { "x'7b7d'" };
    let mut statements = String::new();
    for (kind, operation) in
        [("shop.paid", "p1"), ("shop.paid", "p2"), ("shop.paid", "p3"), ("shop.refunded", "r1")]
    {
        statements += &format!(
            "INSERT INTO outbox_messages (kind, operation, payload) VALUES ('{kind}', '{operation}', {payload});"
        );
    }
    statements += "DELETE FROM outbox_messages WHERE seq = 1";
    if postgres {
        PgConnection::establish(&database.url).expect("connects").batch_execute(&statements)
    } else {
        SqliteConnection::establish(&database.url).expect("opens").batch_execute(&statements)
    }
    .expect("executes");
}

async fn it_is_asked_for_in_full_and_looked_at_first(database: &Database) {
    history(database);
    let start = ["start", "--consumer", "billing"];
    let why = ["--reason", "ticket 4711"];
    says(&refused(database, &[&start[..], &["--all"]].concat()), &["--reason"]);
    says(&refused(database, &[&start[..], &why].concat()), &["which messages", "--all"]);
    let side = ["--all", "--force-side-effects", "biling"];
    says(&refused(database, &[&start[..], &side, &why].concat()), &["biling", "billing"]);
    let gap = ["--from-seq", "1"];
    says(
        &refused(database, &[&start[..], &gap, &why].concat()),
        &["the log begins at 2", "--from-seq 2", "--allow-gap"],
    );
    says(
        &refused(database, &[&start[..], &["--kind", "shop.pad"], &why].concat()),
        &["nothing in the log fits"],
    );
    says(&refused(database, &[&start[..], &["--since", "yesterday"], &why].concat()), &["2026-"]);
    let dry = [&start[..], &["--all", "--dry-run"]].concat();
    says(
        &done(database, &dry),
        &["3 messages would be sent to queue billing, from 2 to 4", "shop.refunded", "begins at 2"],
    );
    let json: Value =
        serde_json::from_str(&done(database, &[&dry[..], &["--json"]].concat())).expect("JSON");
    assert_eq!((&json["total"], &json["kinds"]["shop.paid"]), (&3.into(), &2.into()));
    assert_eq!((&json["first_kept"], &json["gap"]), (&2.into(), &false.into()));
    says(&done(database, &["list"]), &["nothing was replayed"]);
    says(&refused(database, &["show", "1"]), &["no replay 1", "relay replay list"]);
}

async fn it_is_sent_shown_resumed_and_cancelled(database: &Database) {
    history(database);
    let corner = Corner::new(rabbitmq());
    let queue = corner.queue("billing").await;
    let start =
        ["start", "--consumer", "billing", "--kind", "shop.paid", "--reason", "ticket 4711"];
    let sent = done(database, &[&start[..], &["--queue", &queue]].concat());
    says(&sent, &["replay 1 of 2 messages", "begins at 2", "replay 1 is done: 2 messages sent"]);
    assert_eq!(corner.depth(&queue).await, 2);
    let missing = corner.name("missing");
    let json = [&start[..], &["--queue", &missing, "--json"]].concat();
    let failed = replay(database, &json);
    assert!(!failed.status.success());
    let told = lines(&String::from_utf8(failed.stdout).expect("UTF-8"));
    assert_eq!((&told[0]["event"], &told[0]["total"]), (&"started".into(), &2.into()));
    let end = told.last().expect("an end");
    assert_eq!((&end["event"], &end["state"]), (&"ended".into(), &"failed".into()));
    let text = String::from_utf8(failed.stderr).expect("UTF-8");
    says(&text, &["replay 2 cannot go on", "no queue", &missing, "relay replay resume 2"]);
    says(&done(database, &["list"]), &["ticket 4711", "failed", "done", "2 of 2", "anna@desk"]);
    says(&done(database, &["show", "2"]), &["no queue", "shop.paid", "refused", "0 of 2"]);

    let late = corner.broker.clone();
    transport::Topology::declare_queue(&late, &transport::Queue::new(&missing))
        .await
        .expect("declares");
    says(&refused(database, &["resume", "2"]), &["--reason"]);
    let again = done(database, &["resume", "2", "--reason", "declared it", "--json"]);
    assert_eq!(lines(&again).last().expect("an end")["sent"], 2);
    assert_eq!(corner.depth(&missing).await, 2);
    transport::Topology::delete_queue(&late, &missing).await.expect("deletes");
    says(
        &refused(database, &["resume", "2", "--reason", "again"]),
        &["replay 2 is done", "start another"],
    );

    refused(database, &json);
    says(&done(database, &["cancel", "3", "--dry-run"]), &["would be cancelled"]);
    says(&done(database, &["cancel", "3", "--reason", "wrong queue"]), &["was cancelled"]);
    says(&refused(database, &["cancel", "3", "--reason", "x"]), &["replay 3 is cancelled"]);
    let show: Value =
        serde_json::from_str(&done(database, &["show", "3", "--json"])).expect("JSON");
    assert_eq!(
        (&show["state"], &show["selection"]["kinds"][0]),
        (&"cancelled".into(), &"shop.paid".into())
    );
    corner.clean().await;
}

on_both!(it_is_asked_for_in_full_and_looked_at_first, it_is_sent_shown_resumed_and_cancelled);
