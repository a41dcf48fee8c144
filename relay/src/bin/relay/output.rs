use std::io::{ErrorKind, Write};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// Prints a line. A reader that has seen enough, as `head`, is no error.
pub(crate) fn say(text: impl std::fmt::Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

pub(crate) fn json(value: &Value) -> Result<()> {
    say(serde_json::to_string_pretty(value)?)
}

/// Prints JSON on one line, for a program that follows what goes on.
pub(crate) fn json_line(value: &Value) -> Result<()> {
    say(value)
}

/// Prints a table, or `empty` where there is nothing in it.
pub(crate) fn table(headers: &[&str], rows: Vec<Vec<String>>, empty: &str) -> Result<()> {
    if rows.is_empty() {
        return say(empty);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headers.to_vec());
    table.add_rows(rows);
    say(table)
}

/// RFC 3339 in UTC, to the second.
pub(crate) fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// A length of time for people.
pub(crate) fn span(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        return "under 1s".to_owned();
    }
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

/// What is not there.
pub(crate) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}
