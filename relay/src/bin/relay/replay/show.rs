use anyhow::Result;
use outbox::replay::{NewReplay, ReplayInfo, ReplayPlan, ReplayState, Selection};
use serde_json::{Value, json};

use crate::operator::Output;
use crate::output::{self, say, span, time};

pub(super) fn list(replays: &[ReplayInfo], output: Output) -> Result<()> {
    if output.json {
        return output::json(&replays.iter().map(|info| as_json(info, "replay")).collect());
    }
    let rows = replays.iter().map(|info| {
        vec![
            info.id.to_string(),
            state(info),
            info.consumer.clone(),
            info.queue.clone(),
            format!("{} of {}", info.sent, info.total),
            time(info.started_at),
            info.actor.clone(),
            info.reason.clone(),
        ]
    });
    let headers = ["replay", "state", "consumer", "queue", "sent", "started", "who", "why"];
    output::table(&headers, rows.collect(), "nothing was replayed yet")
}

pub(super) fn one(info: &ReplayInfo, output: Output) -> Result<()> {
    if output.json {
        return output::json(&as_json(info, "replay"));
    }
    let mut rows = vec![
        ("state", state(info)),
        ("consumer", info.consumer.clone()),
        ("queue", info.queue.clone()),
        ("side effects", if info.forced { "forced" } else { "refused" }.to_owned()),
        ("selection", selection(&info.selection).to_string()),
        ("rate", format!("{} messages a second", info.rate)),
        ("sent", format!("{} of {}", info.sent, info.total)),
        ("unsendable", info.unsendable.to_string()),
        ("position", format!("{} of {}", info.position, info.last_seq)),
        ("log began at", info.first_kept.to_string()),
        ("who", who(info)),
        ("why", info.reason.clone()),
        ("started", time(info.started_at)),
        ("moved last", time(info.updated_at)),
    ];
    if let Some(at) = info.finished_at {
        rows.push(("ended", time(at)));
    }
    if !info.last_error.is_empty() {
        rows.push(("failed over", info.last_error.clone()));
    }
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]);
    output::table(&["", "value"], rows.collect(), "")
}

fn who(info: &ReplayInfo) -> String {
    if info.role.is_empty() {
        info.actor.clone()
    } else {
        format!("{} as {}", info.actor, info.role)
    }
}

fn state(info: &ReplayInfo) -> String {
    match (info.state, &info.holder) {
        (ReplayState::Running, Some(holder)) if holder.remaining.is_some() => {
            format!("running: {}", holder.owner)
        }
        (ReplayState::Running, Some(_) | None) => "interrupted; resume it".to_owned(),
        (ReplayState::Done, _) if info.deleted_meanwhile() > 0 => {
            format!("done; {} were deleted before they were sent", info.deleted_meanwhile())
        }
        (ReplayState::Done | ReplayState::Failed | ReplayState::Cancelled, _) => {
            info.state.as_str().to_owned()
        }
    }
}

pub(super) fn as_json(info: &ReplayInfo, event: &str) -> Value {
    let holder = info.holder.as_ref();
    json!({
        "event": event, "id": info.id, "state": info.state.as_str(), "consumer": info.consumer,
        "queue": info.queue, "forced": info.forced, "selection": selection(&info.selection),
        "rate": info.rate, "first_kept": info.first_kept, "total": info.total, "sent": info.sent,
        "unsendable": info.unsendable, "deleted_meanwhile": info.deleted_meanwhile(),
        "position": info.position, "last_seq": info.last_seq, "last_error": info.last_error,
        "holder": holder.map(|holder| json!({
            "owner": holder.owner,
            "remaining_seconds": holder.remaining.map(|left| left.as_secs_f64()),
        })),
        "actor": info.actor, "role": info.role, "reason": info.reason,
        "started_at": time(info.started_at), "updated_at": time(info.updated_at),
        "finished_at": info.finished_at.map(time),
    })
}

/// With times as people write them.
fn selection(selection: &Selection) -> Value {
    json!({
        "from_seq": selection.from_seq, "to_seq": selection.to_seq,
        "since": selection.since.map(time), "until": selection.until.map(time),
        "kinds": selection.kinds, "keys": selection.keys, "operations": selection.operations,
        "ids": selection.ids,
    })
}

/// What a dry run found.
pub(super) fn plan(plan: &ReplayPlan, new: &NewReplay, output: Output) -> Result<()> {
    if output.json {
        return output::json(&json!({
            "dry_run": true, "consumer": new.consumer, "queue": new.queue, "forced": new.forced,
            "selection": selection(&new.selection), "rate": new.rate, "total": plan.total,
            "kinds": plan.kinds, "first_seq": plan.span.map(|span| span.0),
            "last_seq": plan.span.map(|span| span.1),
            "first_kept": plan.first_kept.map(|first| first.seq), "gap": plan.gap,
            "missing_ids": plan.missing_ids,
        }));
    }
    let Some((first, last)) = plan.span else {
        say("nothing in the log fits")?;
        return remarks(plan).into_iter().try_for_each(say);
    };
    say(format!(
        "{} messages would be sent to queue {}, from {first} to {last}, in about {}",
        plan.total,
        new.queue,
        span(std::time::Duration::from_secs(plan.total / u64::from(new.rate.max(1))))
    ))?;
    let rows = plan.kinds.iter().map(|(kind, count)| vec![kind.clone(), count.to_string()]);
    output::table(&["kind", "messages"], rows.collect(), "")?;
    remarks(plan).into_iter().try_for_each(say)
}

/// What is not there any more.
pub(super) fn remarks(plan: &ReplayPlan) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(first) = plan.first_kept.filter(|first| first.seq > 1) {
        let also = if plan.gap { ", and the selection begins before it" } else { "" };
        lines.push(format!(
            "The log begins at {} ({}){also}: what came before is deleted and no part of a replay",
            first.seq,
            time(first.created_at)
        ));
    }
    if !plan.missing_ids.is_empty() {
        let missing: Vec<_> = plan.missing_ids.iter().take(10).map(ToString::to_string).collect();
        let more = if plan.missing_ids.len() > 10 { " and more" } else { "" };
        lines.push(format!("Not in the log: {}{more}", missing.join(", ")));
    }
    lines
}
