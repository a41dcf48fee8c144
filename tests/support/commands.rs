//! The program `relay` as an operator runs it.

use std::process::{Command, Output};

use serde_json::Value;

use crate::database::Database;
use crate::process::binary;
use crate::services::amqp_url;

/// Runs a command to its end.
#[must_use]
pub fn relay(database: &Database, args: &[&str]) -> Output {
    Command::new(binary("relay"))
        .args(args)
        .env("RELAY_DATABASE_URL", &database.url)
        .env("RELAY_AMQP_URL", amqp_url())
        .env("RELAY_ACTOR", "anna@desk")
        .output()
        .expect("runs")
}

/// Standard output of a command that must work.
#[track_caller]
pub fn done(database: &Database, args: &[&str]) -> String {
    let output = relay(database, args);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Standard error of a command that must refuse.
#[track_caller]
pub fn refused(database: &Database, args: &[&str]) -> String {
    let output = relay(database, args);
    assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// What a command that must work says as JSON.
#[must_use]
pub fn json(database: &Database, args: &[&str]) -> Value {
    serde_json::from_str(&done(database, args)).expect("JSON")
}

/// Each of the parts is in the text.
#[track_caller]
pub fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}
