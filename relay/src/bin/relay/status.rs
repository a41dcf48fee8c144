use std::time::Duration;

use anyhow::Result;
use outbox::admin::{AdminStore, Backlog, CursorInfo, HoldCount, Vitals};
use serde_json::json;

use crate::config::Config;
use crate::cursors::{as_json, state};
use crate::operator::{Output, connection, on_database};
use crate::output::{self, say, span};

/// Counting on would take long and tell little.
const BOUND: u32 = 1_000_000;
const WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn status(config: &Config, output: Output) -> Result<()> {
    on_database!(config, show(output))
}

fn show<C: AdminStore>(config: &Config, output: Output) -> Result<()> {
    let mut conn = connection::<C>(config)?;
    let mut cursors = Vec::new();
    for cursor in conn.cursors()? {
        let backlog = conn.backlog(&cursor.name, BOUND, WITHIN)?;
        cursors.push((cursor, backlog));
    }
    let holds = conn.hold_counts()?;
    let vitals = conn.vitals(WITHIN)?;
    if output.json { machine(&cursors, &holds, &vitals) } else { people(&cursors, &holds, &vitals) }
}

fn people(cursors: &[(CursorInfo, Backlog)], holds: &[HoldCount], vitals: &Vitals) -> Result<()> {
    let rows = cursors.iter().map(|(cursor, backlog)| {
        let more = if backlog.more { "more than " } else { "" };
        let held = |state: &str| -> i64 {
            let alike =
                holds.iter().filter(|group| group.cursor == cursor.name && group.state == state);
            alike.map(|group| group.count).sum()
        };
        vec![
            cursor.name.clone(),
            state(cursor),
            format!("{more}{}", backlog.messages),
            backlog.oldest.map_or("-".to_owned(), span),
            held("waiting").to_string(),
            held("dead").to_string(),
        ]
    });
    let headers = ["cursor", "state", "pending", "oldest", "held", "dead"];
    output::table(&headers, rows.collect(), "there is no cursor; `relay cursors add` makes one")?;
    let rows = holds.iter().map(|group| {
        vec![
            group.cursor.clone(),
            group.state.clone(),
            group.reason.clone(),
            group.count.to_string(),
        ]
    });
    output::table(
        &["cursor", "state", "held for", "messages"],
        rows.collect(),
        "No message is held",
    )?;
    if let Some(holder) = &vitals.oldest_xmin {
        let open = holder.open.map_or(String::new(), |open| format!(", open for {}", span(open)));
        say(format!(
            "Vacuum waits for {} in database {:?}{open}, {} transactions ago",
            holder.who, holder.database, holder.transactions
        ))?;
    }
    Ok(())
}

fn machine(cursors: &[(CursorInfo, Backlog)], holds: &[HoldCount], vitals: &Vitals) -> Result<()> {
    let cursors = cursors.iter().map(|(cursor, backlog)| {
        let mut value = as_json(cursor);
        value["pending"] = json!(backlog.messages);
        value["pending_is_more"] = json!(backlog.more);
        value["oldest_pending_seconds"] = json!(backlog.oldest.map(|oldest| oldest.as_secs_f64()));
        value
    });
    let holds = holds.iter().map(|group| {
        json!({ "cursor": group.cursor, "state": group.state, "reason": group.reason, "count": group.count })
    });
    let xmin = vitals.oldest_xmin.as_ref().map(|holder| {
        json!({
            "who": holder.who, "database": holder.database, "transactions": holder.transactions,
            "open_seconds": holder.open.map(|open| open.as_secs_f64()),
        })
    });
    let dead = vitals.dead_tuples.iter().map(|table| {
        json!({ "table": table.table, "dead": table.dead, "live": table.live, "autovacuum_off": table.autovacuum_off })
    });
    output::json(&json!({
        "cursors": cursors.collect::<Vec<_>>(), "holds": holds.collect::<Vec<_>>(),
        "oldest_xmin": xmin, "tables": dead.collect::<Vec<_>>(),
    }))
}
