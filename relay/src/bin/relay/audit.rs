use anyhow::Result;
use clap::Args;
use outbox::admin::{AdminStore, AuditEntry};
use serde_json::{Value, json};

use crate::config::Config;
use crate::operator::{Output, connection, on_database};
use crate::output::{self, or_dash, time};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// At most so many, newest first.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn audit(config: &Config, options: &Options) -> Result<()> {
    on_database!(config, show(options))
}

fn show<C: AdminStore>(config: &Config, options: &Options) -> Result<()> {
    let entries = connection::<C>(config)?.audit(options.limit)?;
    if options.output.json {
        return output::json(&entries.iter().map(as_json).collect());
    }
    let rows = entries.into_iter().map(|entry| {
        let who = if entry.role.is_empty() {
            entry.actor
        } else {
            format!("{} as {}", entry.actor, entry.role)
        };
        vec![time(entry.at), who, entry.action, or_dash(entry.cursor), entry.reason, entry.detail]
    });
    let headers = ["at", "who", "what", "cursor", "why", "detail"];
    output::table(&headers, rows.collect(), "no operator has changed anything")
}

fn as_json(entry: &AuditEntry) -> Value {
    // It is JSON by a constraint of the table; anything else is shown as the text it is.
    let detail =
        serde_json::from_str(&entry.detail).unwrap_or_else(|_| Value::String(entry.detail.clone()));
    json!({
        "id": entry.id, "at": time(entry.at), "actor": entry.actor, "role": entry.role, "action": entry.action,
        "cursor": entry.cursor, "reason": entry.reason, "detail": detail,
    })
}
