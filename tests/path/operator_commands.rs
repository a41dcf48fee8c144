//! Each command of an operator, with the real program, on both databases.

use std::process::Command;

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, SqliteConnection};
use serde_json::Value;
use support::commands::{done, json, refused, relay, says};
use support::database::Database;
use support::pgbouncer::PgBouncer;
use support::process::binary;
use support::services::amqp_url;

macro_rules! on_both {
    ($($scenario:ident),+ $(,)?) => {
        mod postgres { $(#[test] fn $scenario() { super::$scenario(&support::database::Database::postgres()); })+ }
        mod sqlite { $(#[test] fn $scenario() { super::$scenario(&support::database::Database::sqlite()); })+ }
    };
}

fn sql(database: &Database, statements: &str) {
    if database.url.starts_with("postgres") {
        PgConnection::establish(&database.url).expect("connects").batch_execute(statements)
    } else {
        SqliteConnection::establish(&database.url).expect("opens").batch_execute(statements)
    }
    .expect("executes");
}

/// Messages 1 to 4; 1 is dead, 2 waits behind it, 3 is refused and waits, 4 is no message at all.
fn with_holds(database: &Database) {
    let payload =
        if database.url.starts_with("postgres") { "convert_to('{}', 'UTF8')" } else { "x'7b7d'" };
    for number in 1..=4 {
        sql(
            database,
            &format!(
                "INSERT INTO outbox_messages (kind, operation, exchange, payload)
                 VALUES ('shop.paid', 'order-{number}', 'shop-events', {payload})"
            ),
        );
    }
    for (seq, state, reason, attempts, key) in [
        (1, "dead", "unroutable", 20, "'order'"),
        (2, "waiting", "behind", 0, "'order'"),
        (3, "waiting", "nacked", 3, "NULL"),
        (4, "dead", "poison", 0, "NULL"),
    ] {
        sql(
            database,
            &format!(
                "INSERT INTO outbox_holds (cursor, seq, state, reason, attempts, not_before, ordering_key, last_error)
                 SELECT 'relay', {seq}, '{state}', '{reason}', {attempts}, created_at, {key}, 'bind one' FROM outbox_cursors"
            ),
        );
    }
}

fn cursors_are_listed_made_and_retired(database: &Database) {
    says(&done(database, &["cursors", "list"]), &["relay", "nobody holds it", "everything"]);
    let add =
        ["cursors", "add", "search", "--from", "now", "--kind", "shop.paid", "--exchange", "shop"];
    says(&refused(database, &add), &["--reason"]);
    let add = [&add[..], &["--reason", "a second broker"]].concat();
    says(&done(database, &[&add[..], &["--dry-run"]].concat()), &["would be made"]);
    says(&done(database, &add), &["was made", "--cursor"]);
    says(&refused(database, &add), &["there is a cursor \"search\" already"]);
    let list = json(database, &["cursors", "list", "--json"]);
    assert_eq!(list[1]["name"], "search");
    assert_eq!(list[1]["kinds"], serde_json::json!(["shop.paid"]));
    let retire = ["cursors", "retire", "search", "--reason", "gone"];
    says(&refused(database, &retire), &["--yes", "--dry-run"]);
    says(&done(database, &[&retire[..], &["--dry-run"]].concat()), &["would be retired"]);
    says(&done(database, &[&retire[..], &["--yes"]].concat()), &["was retired", "0 held"]);
    says(
        &refused(database, &[&retire[..], &["--yes"]].concat()),
        &["there is no cursor", "relay cursors list"],
    );
    let audit = json(database, &["audit", "--json"]);
    assert_eq!(audit[0]["action"], "cursors.retire");
    assert_eq!(
        (&audit[1]["actor"], &audit[1]["reason"]),
        (&"anna@desk".into(), &"a second broker".into())
    );
    says(&done(database, &["audit"]), &["anna@desk", "cursors.add", "a second broker"]);
}

fn a_cursor_in_use_is_not_retired(database: &Database) {
    let later = if database.url.starts_with("postgres") {
        "now() + interval '1 hour'"
    } else {
        "9000000000000000"
    };
    sql(database, &format!("UPDATE outbox_cursors SET owner = 'pod-7', lease_until = {later}"));
    let retire = ["cursors", "retire", "relay", "--yes", "--reason", "gone"];
    says(&refused(database, &retire), &["is held by pod-7", "force"]);
    says(&done(database, &["status"]), &["held by pod-7"]);
    says(&done(database, &[&retire[..], &["--force"]].concat()), &["was retired"]);
}

fn held_messages_are_listed_and_decided_about(database: &Database) {
    with_holds(database);
    let list = done(database, &["holds", "list"]);
    says(&list, &["unroutable", "behind", "shop.paid", "shop-events", "bind", "order"]);
    let dead = json(database, &["holds", "list", "--state", "dead", "--json"]);
    assert_eq!(dead.as_array().map(Vec::len), Some(2));
    assert_eq!(dead[0]["message"]["operation"], "order-1");
    says(&done(database, &["holds", "list", "--key", "another"]), &["no held messages fit"]);
    says(&refused(database, &["holds", "list", "--held-for", "bordom"]), &["unroutable"]);

    let why = ["--reason", "bound it"];
    says(&refused(database, &[&["holds", "retry"], &why[..]].concat()), &["--all"]);
    let retry = [&["holds", "retry", "--all"], &why[..]].concat();
    says(
        &done(database, &[&retry[..], &["--dry-run"]].concat()),
        &["1 held messages would be put back", "1 left alone"],
    );
    says(&done(database, &retry), &["1 held messages were put back", "1 left alone", "discarded"]);
    let now = ["holds", "try-now", "--held-for", "nacked", "--reason", "there is room"];
    says(&done(database, &now), &["1 held messages were made due"]);
    let discard = ["holds", "discard", "--seq", "4", "--reason", "enqueued anew"];
    says(&refused(database, &discard), &["--yes"]);
    says(
        &done(database, &[&discard[..], &["--yes"]].concat()),
        &["1 held messages were discarded"],
    );
    says(
        &refused(database, &[&discard[..], &["--yes", "--cursor", "rely"]].concat()),
        &["there is no cursor \"rely\""],
    );
    let left = json(database, &["holds", "list", "--json"]);
    assert!(left.as_array().is_some_and(|left| left.len() == 3), "{left}");
    assert!(
        left.as_array().is_some_and(|left| left.iter().all(|hold| hold["state"] == "waiting")),
        "{left}"
    );
    let status = json(database, &["status", "--json"]);
    assert_eq!(status["holds"].as_array().map(Vec::len), Some(3));
    says(&done(database, &["status"]), &["relay", "nacked", "waiting"]);
}

fn a_pause_is_seen_and_ended(database: &Database) {
    says(&done(database, &["resume", "--reason", "nothing"]), &["is not paused"]);
    says(
        &done(database, &["pause", "--reason", "the broker moves", "--dry-run"]),
        &["would be paused"],
    );
    assert_eq!(json(database, &["cursors", "list", "--json"])[0]["paused"], Value::Null);
    says(
        &done(database, &["pause", "--reason", "the broker moves"]),
        &["was paused", "relay resume"],
    );
    says(&done(database, &["status"]), &["paused since", "the broker moves"]);
    says(&done(database, &["resume", "--reason", "it has moved"]), &["was resumed"]);
    assert_eq!(json(database, &["cursors", "list", "--json"])[0]["paused"], Value::Null);
    says(&refused(database, &["pause", "--reason", " "]), &["say why"]);
}

fn old_messages_are_pruned(database: &Database) {
    with_holds(database);
    let old = if database.url.starts_with("postgres") {
        "created_at - interval '40 days'"
    } else {
        "created_at - 3456000000000"
    };
    sql(database, &format!("UPDATE outbox_messages SET created_at = {old}"));
    let prune = ["prune", "--older-than", "30d", "--batch", "1", "--reason", "retention"];
    says(&refused(database, &prune), &["--yes"]);
    let sure = [&prune[..], &["--yes"]].concat();
    says(&done(database, &sure), &["0 messages older than 30days were deleted"]);
    // The cursor has passed them all; two of them are held.
    sql(database, "DELETE FROM outbox_holds WHERE seq IN (1, 3)");
    let passed = if database.url.starts_with("postgres") {
        ", snapshot = pg_current_snapshot()"
    } else {
        ""
    };
    sql(database, &format!("UPDATE outbox_cursors SET seq = 4{passed}"));
    says(
        &done(database, &[&prune[..], &["--dry-run"]].concat()),
        &["2 messages older than 30days would be deleted"],
    );
    assert_eq!(json(database, &[&sure[..], &["--json"]].concat())["deleted"], 2);
    says(&done(database, &sure), &["0 messages"]);
    says(&refused(database, &["prune", "--older-than", "soon", "--reason", "r"]), &["30d"]);
    assert_eq!(
        json(database, &["audit", "--json"])[0]["detail"]["older_than_seconds"],
        30 * 86_400
    );
}

fn the_doctor_names_what_is_wrong(database: &Database) {
    let well = done(database, &["doctor"]);
    says(
        &well,
        &["ok   settings", "ok   schema", "ok   broker", "warn lease", "remedy: start a relay"],
    );
    with_holds(database);
    let missing = relay(database, &["doctor"]);
    assert_eq!(missing.status.code(), Some(1));
    let text = String::from_utf8(missing.stdout).expect("UTF-8");
    says(
        &text,
        &[
            "fail topology",
            "\"shop-events\", which does not exist",
            "declare it",
            "warn holds: 2 dead",
        ],
    );
    let json: Value =
        serde_json::from_slice(&relay(database, &["doctor", "--json"]).stdout).expect("JSON");
    let failed = |check: &&Value| check["verdict"] == "fail";
    assert_eq!(json.as_array().expect("a list").iter().filter(failed).count(), 1, "{json}");
    let text = relay(database, &["doctor", "--cursor", "rely", "--lease", "4s"]);
    let text = String::from_utf8(text.stdout).expect("UTF-8");
    says(&text, &["fail cursor: there is no cursor \"rely\"", "fail settings: lease = 4s"]);
}

on_both!(
    cursors_are_listed_made_and_retired,
    a_cursor_in_use_is_not_retired,
    held_messages_are_listed_and_decided_about,
    a_pause_is_seen_and_ended,
    old_messages_are_pruned,
    the_doctor_names_what_is_wrong,
);

#[test]
fn the_doctor_knows_a_collation_that_was_replaced() {
    let database = Database::postgres();
    says(&done(&database, &["doctor"]), &["ok   collation"]);
    // As after an upgrade of the operating system; "C" has no version.
    sql(
        &database,
        "UPDATE pg_database SET datcollversion = '2.28' WHERE datname = current_database()",
    );
    says(
        &String::from_utf8(relay(&database, &["doctor"]).stdout).expect("UTF-8"),
        &["fail collation", "version 2.28", "REINDEX DATABASE", "REFRESH COLLATION VERSION"],
    );
}

#[test]
fn the_doctor_knows_another_cluster_and_a_missing_right() {
    let database = Database::postgres();
    sql(&database, "UPDATE outbox_cursors SET system_id = '1', timeline = 1");
    says(
        &String::from_utf8(relay(&database, &["doctor"]).stdout).expect("UTF-8"),
        &["fail identity", "was moved in the cluster 1", "relay rebase"],
    );
    sql(
        &database,
        "UPDATE outbox_cursors SET system_id = NULL, timeline = NULL,
             snapshot = '9000000000:9000000000:'::pg_snapshot",
    );
    says(
        &String::from_utf8(relay(&database, &["doctor"]).stdout).expect("UTF-8"),
        &["fail identity", "has not begun", "relay rebase"],
    );
}

#[test]
fn the_wake_up_is_turned_on_and_off_and_the_doctor_compares() {
    let database = Database::postgres();
    let doctor = |config: &str| {
        let args = ["doctor", "--config", config];
        String::from_utf8(relay(&database, &args).stdout).expect("UTF-8")
    };
    let config = std::env::temp_dir().join(format!("{}.toml", uuid::Uuid::now_v7().simple()));
    std::fs::write(&config, "[relay]\nwake = 'notify'\n").expect("written");
    let config = config.to_str().expect("UTF-8");
    says(&done(&database, &["doctor"]), &["ok   wake-up: off"]);
    says(&doctor(config), &["warn wake-up", "remedy: `relay wakeup on`"]);
    says(&refused(&database, &["wakeup", "on"]), &["--reason"]);
    let on = ["wakeup", "on", "--reason", "at once"];
    says(&done(&database, &["wakeup", "on", "--dry-run"]), &["would be turned on"]);
    says(&done(&database, &on), &["was turned on", "wake = \"notify\"", "PREPARE TRANSACTION"]);
    says(&done(&database, &on), &["is on already"]);
    says(&doctor(config), &["ok   wake-up: producers tell", "warn wake-up", "cannot be prepared"]);
    says(&done(&database, &["doctor"]), &["warn wake-up: it is on", "relay wakeup off"]);
    let pooled = ["doctor", "--config", config, "--transaction-pooler"];
    let text = String::from_utf8(relay(&database, &pooled).stdout).expect("UTF-8");
    says(&text, &["fail settings: wake = notify", "transaction_pooler = true"]);
    says(&done(&database, &["wakeup", "off", "--reason", "enough"]), &["was turned off"]);
    says(&done(&database, &["audit"]), &["wakeup.on", "wakeup.off", "anna@desk", "at once"]);
    says(&refused(&Database::sqlite(), &on), &["SQLite tells nobody of a commit", "poll_idle"]);
    std::fs::remove_file(config).expect("removed");
}

#[test]
fn the_doctor_notices_a_transaction_pooler() {
    let database = Database::postgres();
    says(&done(&database, &["doctor"]), &["ok   pooler: no transaction pooler"]);
    let pooler = PgBouncer::before(&database.url);
    let doctor = |told: &str| {
        let output = Command::new(binary("relay"))
            .arg("doctor")
            .env("RELAY_DATABASE_URL", &pooler.url)
            .env("RELAY_AMQP_URL", amqp_url())
            .env("RELAY_TRANSACTION_POOLER", told)
            .output()
            .expect("runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let (code, text) = doctor("false");
    assert_eq!(code, Some(1), "{text}");
    says(&text, &["fail pooler", "transaction_pooler is not set", "RELAY_TRANSACTION_POOLER=true"]);
    // The rest is looked at all the same.
    says(&text, &["ok   schema", "ok   rights", "ok   identity", "ok   broker"]);
    let (code, text) = doctor("true");
    assert_eq!(code, Some(0), "{text}");
    says(&text, &["ok   pooler: a transaction pooler, and transaction_pooler is set"]);
}

#[test]
fn a_database_without_tables_is_told_with_its_remedy() {
    let database = Database::empty_postgres();
    for command in [&["status"][..], &["holds", "list"], &["pause", "--reason", "r"]] {
        says(&refused(&database, command), &["no Counterfoil tables", "relay migrate"]);
    }
    let text = String::from_utf8(relay(&database, &["doctor"]).stdout).expect("UTF-8");
    says(&text, &["fail schema", "relay migrate", "ok   broker"]);
}
