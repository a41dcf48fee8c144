use std::time::SystemTime;

use anyhow::Result;
use clap::Args;
use inbox::InboxConnection;
use outbox::admin::AdminStore;
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

/// One change, to a cursor or to what a consumer has parked.
struct Line {
    id: i64,
    at: SystemTime,
    actor: String,
    role: String,
    action: String,
    cursor: Option<String>,
    consumer: Option<String>,
    reason: String,
    detail: String,
}

impl From<outbox::admin::AuditEntry> for Line {
    fn from(entry: outbox::admin::AuditEntry) -> Self {
        let outbox::admin::AuditEntry { id, at, actor, role, action, cursor, reason, detail } =
            entry;
        Self { id, at, actor, role, action, cursor, consumer: None, reason, detail }
    }
}

impl From<inbox::admin::AuditEntry> for Line {
    fn from(entry: inbox::admin::AuditEntry) -> Self {
        let inbox::admin::AuditEntry { id, at, actor, role, action, consumer, reason, detail } =
            entry;
        Self { id, at, actor, role, action, cursor: None, consumer: Some(consumer), reason, detail }
    }
}

fn show<C: AdminStore + InboxConnection>(config: &Config, options: &Options) -> Result<()> {
    let mut conn = connection::<C>(config)?;
    let mut lines: Vec<Line> = conn.audit(options.limit)?.into_iter().map(Line::from).collect();
    let decided = inbox::admin::audit(&mut *conn, options.limit)?;
    lines.extend(decided.into_iter().map(Line::from));
    // Each table is in order already, and the sort keeps what happened in one moment so.
    lines.sort_by_key(|line| std::cmp::Reverse(line.at));
    lines.truncate(options.limit as usize);
    if options.output.json {
        return output::json(&lines.iter().map(as_json).collect());
    }
    let rows = lines.into_iter().map(|line| {
        let who = if line.role.is_empty() {
            line.actor
        } else {
            format!("{} as {}", line.actor, line.role)
        };
        let whose = or_dash(line.cursor.or(line.consumer));
        vec![time(line.at), who, line.action, whose, line.reason, line.detail]
    });
    let headers = ["at", "who", "what", "cursor or consumer", "why", "detail"];
    output::table(&headers, rows.collect(), "no operator has changed anything")
}

fn as_json(line: &Line) -> Value {
    // It is JSON by a constraint of the table; anything else is shown as the text it is.
    let detail =
        serde_json::from_str(&line.detail).unwrap_or_else(|_| Value::String(line.detail.clone()));
    json!({
        "id": line.id, "at": time(line.at), "actor": line.actor, "role": line.role, "action": line.action,
        "cursor": line.cursor, "consumer": line.consumer, "reason": line.reason, "detail": detail,
    })
}
