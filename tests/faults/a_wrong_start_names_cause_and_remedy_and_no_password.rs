//! What an operator gets wrong is said by the program, with the remedy, once, and without any
//! password; what only needs time is waited for.

use std::net::TcpListener;
use std::process::Command;

use diesel::connection::SimpleConnection;
use support::database::Database;
use support::process::{Process, binary};
use support::services::amqp_url;

const CANARY: &str = "canary-4711";

/// Runs `relay run` until it ends by itself and returns what it printed.
fn refused(args: &[&str], database: &str, broker: &str) -> String {
    let mut command = Command::new(binary("relay"));
    command.arg("run").args(args).env("RELAY_DATABASE_URL", database).env("RELAY_AMQP_URL", broker);
    command.env("RELAY_LOG", "trace");
    let mut relay = Process::spawn(command);
    let status = relay.finish();
    assert!(!status.success(), "{}", relay.output);
    assert!(!relay.output.contains(CANARY), "{}", relay.output);
    assert!(!relay.output.contains("panicked"), "{}", relay.output);
    relay.output.clone()
}

fn with_password(url: &str, password: &str) -> String {
    let mut url = url::Url::parse(url).expect("a URL");
    url.set_password(Some(password)).expect("a host");
    url.into()
}

#[track_caller]
fn says(output: &str, texts: &[&str]) {
    for text in texts {
        assert!(output.contains(text), "{text:?} is missing in:\n{output}");
    }
}

#[test]
fn a_wrong_password_of_the_database() {
    let database = Database::postgres();
    let output = refused(&[], &with_password(&database.url, CANARY), &amqp_url());
    says(&output, &["refused the login", "check user, password"]);
}

#[test]
fn a_wrong_password_of_the_broker() {
    let database = Database::postgres();
    let output = refused(&[], &database.url, &with_password(&amqp_url(), CANARY));
    says(&output, &["refused user", "check user, password and permissions"]);
}

#[test]
fn addresses_that_are_none() {
    let database = Database::postgres();
    let bad = format!("postgres://u:{CANARY}@host:notaport/db");
    says(&refused(&[], &bad, &amqp_url()), &["not a usable database address"]);
    let bad = format!("amqp://u:{CANARY}@host:notaport/");
    says(&refused(&[], &database.url, &bad), &["broker settings cannot work"]);
}

#[test]
fn a_database_without_tables_or_of_another_release() {
    let database = Database::empty_postgres();
    says(&refused(&[], &database.url, &amqp_url()), &["no Counterfoil tables", "relay migrate"]);

    migrations::run(&mut database.pg()).expect("migrates");
    migrations::revert_last(&mut database.pg()).expect("reverts");
    says(&refused(&[], &database.url, &amqp_url()), &["the schema is at version", "relay migrate"]);

    migrations::run(&mut database.pg()).expect("migrates");
    let newer = "INSERT INTO counterfoil_schema (version, name, compatible_from) VALUES ";
    database
        .pg()
        .batch_execute(&format!("{newer} ('29990101000000', 'expanded', '20261101000001')"))
        .expect("inserts");
    migrations::check(&mut database.pg())
        .expect("a newer schema that only added something is fine");
    database
        .pg()
        .batch_execute(&format!("{newer} ('29990101000001', 'contracted', '29990101000001')"))
        .expect("inserts");
    says(&refused(&[], &database.url, &amqp_url()), &["29990101000001", "upgrade it"]);
}

#[test]
fn settings_that_would_void_a_guarantee() {
    let database = Database::postgres();
    let output = refused(&["--lease", "10s", "--heartbeat", "5s"], &database.url, &amqp_url());
    says(&output, &["lease = 10s", "two heartbeats"]);
    let output =
        refused(&["--lease", "12s", "--publish-timeout", "12s"], &database.url, &amqp_url());
    says(&output, &["lease = 12s", "publish timeout"]);
    let config = std::env::temp_dir().join(format!("{}.toml", uuid::Uuid::now_v7()));
    std::fs::write(&config, "[database]\nlock_timeout = '20s'\n").expect("written");
    let args = ["--config", config.to_str().expect("UTF-8")];
    let output = refused(&args, &database.url, &amqp_url());
    says(&output, &["lock_timeout = 20s", "make it less than the lease (20s)"]);
    let _ = std::fs::remove_file(config);
    let mut relay = Process::start("relay", &["run"], &[("RELAY_AMQP_URL", &amqp_url())]);
    assert!(!relay.finish().success());
    says(&relay.output, &["no database named", "RELAY_DATABASE_URL"]);
}

#[test]
fn a_cursor_that_does_not_exist() {
    for database in [Database::postgres(), Database::sqlite()] {
        let env = [("RELAY_DATABASE_URL", &database.url[..]), ("RELAY_AMQP_URL", &amqp_url())];
        let mut relay = Process::start("relay", &["run", "--cursor", "rely"], &env);
        assert_eq!(relay.finish().code(), Some(1), "{}", relay.output);
        let says =
            "there is no cursor \"rely\"; check the name, or add it with `relay cursors add rely`";
        assert_eq!(relay.output.matches(says).count(), 1, "{}", relay.output);
        let mut cursors = Process::start("relay", &["cursors", "list"], &env);
        assert!(cursors.finish().success());
        assert!(
            !cursors.output.contains("rely "),
            "a mistyped name makes none: {}",
            cursors.output
        );
    }
}

#[test]
fn what_is_not_there_yet_is_waited_for() {
    let database = Database::postgres();
    // A port that nobody listens on.
    let port =
        TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
    let nobody = format!("amqp://u:{CANARY}@127.0.0.1:{port}/");
    let env = [("RELAY_DATABASE_URL", &database.url[..]), ("RELAY_AMQP_URL", &nobody)];
    let mut relay = Process::start("relay", &["run"], &env);
    relay.wait_for("broker unavailable");
    relay.wait_for("cannot reach the broker");
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);
    assert!(!relay.output.contains(CANARY), "{}", relay.output);

    let nobody = format!("postgres://u:{CANARY}@127.0.0.1:{port}/db");
    let amqp = amqp_url();
    let env = [("RELAY_DATABASE_URL", &nobody[..]), ("RELAY_AMQP_URL", &amqp)];
    let mut relay = Process::start("relay", &["run"], &env);
    relay.wait_for("database not reachable yet");
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);
    assert!(!relay.output.contains(CANARY), "{}", relay.output);
}
