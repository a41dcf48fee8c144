use std::time::SystemTime;

use anyhow::{Result, bail};
use clap::Args;
use inbox::admin::{ParkedInfo, ParkedMessage};
use inbox::{InboxConnection, ParkedState};
use outbox::admin::AdminStore;
use serde_json::{Value, json};

use super::Which;
use crate::config::Config;
use crate::operator::{Output, connection};
use crate::output::{self, or_dash, say, span, time};

#[derive(Args, Debug)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Counts {
    /// Only this consumer's.
    #[arg(long)]
    consumer: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Show {
    /// Its number.
    id: i64,
    /// Its headers and body as well, which can be anybody's data.
    #[arg(long)]
    payload: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn list<C: AdminStore + InboxConnection>(config: &Config, options: &List) -> Result<()> {
    let parked = inbox::admin::list(&mut *connection::<C>(config)?, &options.which.selection())?;
    if options.output.json {
        return output::json(&parked.iter().map(as_json).collect());
    }
    let rows = parked.iter().map(|parked| {
        vec![
            parked.id.to_string(),
            parked.consumer.clone(),
            waits_for(parked),
            parked.reason.to_string(),
            parked.attempts.to_string(),
            span(since(parked.parked_at)),
            operation(parked),
            or_dash(parked.ordering_key.clone()),
            parked.detail.clone(),
        ]
    });
    let headers = ["id", "consumer", "waits", "reason", "runs", "for", "message", "key", "detail"];
    output::table(&headers, rows.collect(), "no parked messages fit")?;
    if parked.len() == options.which.limit as usize
        && let Some(last) = parked.last()
    {
        say(format!(
            "There may be more: only {} are shown; --after {} goes on",
            parked.len(),
            last.id
        ))?;
    }
    Ok(())
}

pub(super) fn counts<C: AdminStore + InboxConnection>(
    config: &Config,
    options: &Counts,
) -> Result<()> {
    let counts = inbox::admin::counts(&mut *connection::<C>(config)?, options.consumer.as_deref())?;
    if options.output.json {
        let groups = counts.iter().map(|group| {
            json!({
                "consumer": group.consumer, "state": group.state.as_str(), "reason": group.reason.as_str(),
                "count": group.count, "oldest": time(group.oldest),
            })
        });
        return output::json(&groups.collect());
    }
    let rows = counts.iter().map(|group| {
        vec![
            group.consumer.clone(),
            group.state.as_str().to_owned(),
            group.reason.to_string(),
            group.count.to_string(),
            time(group.oldest),
        ]
    });
    let headers = ["consumer", "state", "reason", "messages", "oldest"];
    output::table(&headers, rows.collect(), "nothing is parked")
}

pub(super) fn show<C: AdminStore + InboxConnection>(config: &Config, options: &Show) -> Result<()> {
    let id = options.id;
    let Some(message) = inbox::admin::show(&mut *connection::<C>(config)?, id)? else {
        bail!(
            "no parked message has the number {id}: it was applied or decided about meanwhile, or never parked"
        );
    };
    if options.output.json {
        let mut value = as_json(&message.info);
        if options.payload {
            value["headers"] = headers(&message);
            value["content_type"] = json!(message.content_type);
            value["payload"] = payload(&message);
        }
        return output::json(&value);
    }
    let info = &message.info;
    for (name, value) in [
        ("id", info.id.to_string()),
        ("consumer", info.consumer.clone()),
        ("waits", waits_for(info)),
        ("reason", info.reason.to_string()),
        ("detail", info.detail.clone()),
        ("runs of the handler", info.attempts.to_string()),
        ("parked", format!("{}, the first time {}", times(info.deliveries), time(info.parked_at))),
        ("message id", or_dash(info.message_id.clone())),
        ("operation", operation(info)),
        ("ordering key", or_dash(info.ordering_key.clone())),
        ("published to", format!("{} {}", info.exchange, info.routing_key)),
        ("body", format!("{} bytes", info.bytes)),
    ] {
        say(format!("{name:20} {value}"))?;
    }
    if !options.payload {
        return say("Headers and body are not shown: they can be anybody's data (--payload)");
    }
    for (name, value) in message.headers.iter() {
        say(format!("header {name}: {value}"))?;
    }
    say(format!("content type: {}", or_dash(message.content_type.clone())))?;
    match std::str::from_utf8(&message.payload) {
        Ok(text) => say(text),
        Err(_) => say(format!("no text, in hexadecimal: {}", hex(&message.payload))),
    }
}

fn as_json(parked: &ParkedInfo) -> Value {
    json!({
        "id": parked.id, "consumer": parked.consumer, "state": parked.state.as_str(), "reason": parked.reason.as_str(),
        "detail": parked.detail, "attempts": parked.attempts, "starts": parked.starts, "deliveries": parked.deliveries,
        "message_id": parked.message_id, "kind": parked.kind,
        "scope": parked.operation.as_ref().map(|operation| &operation.0),
        "operation": parked.operation.as_ref().map(|operation| &operation.1),
        "ordering_key": parked.ordering_key, "exchange": parked.exchange, "routing_key": parked.routing_key,
        "bytes": parked.bytes, "parked_at": time(parked.parked_at), "last_parked_at": time(parked.last_parked_at),
        "not_before": parked.not_before.map(time), "under_way": parked.under_way,
    })
}

fn headers(message: &ParkedMessage) -> Value {
    let pairs = message.headers.iter().map(|(name, value)| (name.to_owned(), json!(value)));
    Value::Object(pairs.collect())
}

/// A body that is no text comes as hexadecimal.
fn payload(message: &ParkedMessage) -> Value {
    match std::str::from_utf8(&message.payload) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "hex": hex(&message.payload) }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn waits_for(parked: &ParkedInfo) -> String {
    match (parked.state, parked.not_before) {
        (ParkedState::Retry, _) if parked.under_way => "is being tried".to_owned(),
        (ParkedState::Retry, Some(due)) => format!("until {}", time(due)),
        (ParkedState::Retry, None) => "for its time".to_owned(),
        (ParkedState::Behind, _) => "behind another".to_owned(),
        (ParkedState::Review, _) => "for a person".to_owned(),
    }
}

fn operation(parked: &ParkedInfo) -> String {
    match &parked.operation {
        Some((scope, id)) => format!("{scope} {id}"),
        None => or_dash(parked.kind.clone()),
    }
}

fn times(count: i64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// By this machine's clock against the database's: good enough to read.
fn since(at: SystemTime) -> std::time::Duration {
    SystemTime::now().duration_since(at).unwrap_or_default()
}
