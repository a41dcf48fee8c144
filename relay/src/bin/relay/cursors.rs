use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use outbox::admin::{AdminStore, CursorInfo, NewCursor, Start};
use outbox::reader::Filter;
use serde_json::{Value, json};

use crate::config::Config;
use crate::operator::{Output, Sure, Why, connection, on_database};
use crate::output::{self, or_dash, say, span, time};

#[derive(Subcommand, Debug)]
pub(crate) enum Cursors {
    /// Show every cursor: who holds it, how far it has come, what it hands on.
    List(Output),
    /// Make a cursor: another reader of the same log, for another broker or part of the messages.
    Add(Add),
    /// Remove a cursor with the messages it holds. What it has not handed on stays in the log for
    /// the others.
    Retire(Retire),
}

#[derive(Args, Debug)]
pub(crate) struct Add {
    /// Its name; relays move it with --cursor NAME.
    name: String,
    /// Where it starts: at the beginning of the log, or behind what is committed now.
    #[arg(long, value_enum)]
    from: From,
    /// Only messages of this kind; may be given several times.
    #[arg(long = "kind")]
    kinds: Vec<String>,
    /// Only messages for this exchange; may be given several times.
    #[arg(long = "exchange")]
    exchanges: Vec<String>,
    #[command(flatten)]
    why: Why,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum From {
    Beginning,
    Now,
}

#[derive(Args, Debug)]
pub(crate) struct Retire {
    /// Its name.
    name: String,
    /// Also while a relay holds it: that relay notices and stops publishing.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    sure: Sure,
}

pub(crate) fn cursors(config: &Config, command: &Cursors) -> Result<()> {
    match command {
        Cursors::List(output) => on_database!(config, list(*output)),
        Cursors::Add(options) => on_database!(config, add(options)),
        Cursors::Retire(options) => on_database!(config, retire(options)),
    }
}

fn list<C: AdminStore>(config: &Config, output: Output) -> Result<()> {
    let cursors = connection::<C>(config)?.cursors()?;
    if output.json {
        return output::json(&cursors.iter().map(as_json).collect());
    }
    let rows = cursors.iter().map(|cursor| {
        vec![
            cursor.name.clone(),
            cursor.seq.to_string(),
            state(cursor),
            filter(&cursor.filter),
            or_dash(cursor.advanced_at.map(time)),
        ]
    });
    let headers = ["cursor", "seq", "state", "filter", "last handed on"];
    output::table(&headers, rows.collect(), "there is no cursor; `relay cursors add` makes one")
}

fn add<C: AdminStore>(config: &Config, options: &Add) -> Result<()> {
    let named = |names: &Vec<String>| (!names.is_empty()).then(|| names.clone());
    let new = NewCursor {
        name: options.name.clone(),
        filter: Filter { kinds: named(&options.kinds), exchanges: named(&options.exchanges) },
        start: match options.from {
            From::Beginning => Start::Beginning,
            From::Now => Start::Now,
        },
    };
    connection::<C>(config)?.add_cursor(&new, &options.why.order())?;
    say(format!(
        "cursor {:?} {} made; start a relay with --cursor {0:?}. Until one moves it, nothing is purged",
        new.name,
        options.why.tense()
    ))
}

fn retire<C: AdminStore>(config: &Config, options: &Retire) -> Result<()> {
    options.sure.check(
        &options.why,
        &format!(
            "retiring cursor {:?} gives up its place in the log and every message it holds",
            options.name
        ),
    )?;
    let order = options.why.order();
    let held = connection::<C>(config)?.retire_cursor(&options.name, options.force, &order)?;
    say(format!(
        "cursor {:?} {} retired, with {held} held messages",
        options.name,
        options.why.tense()
    ))
}

/// Who holds a cursor, in a few words.
pub(crate) fn state(cursor: &CursorInfo) -> String {
    let holder = match &cursor.holder {
        None => "nobody holds it".to_owned(),
        Some(holder) => match holder.remaining {
            Some(left) => format!("held by {} for {}", holder.owner, span(left)),
            None => format!("lease of {} has ended", holder.owner),
        },
    };
    match &cursor.paused {
        None => holder,
        Some(pause) => format!("paused since {}: {}; {holder}", time(pause.since), pause.reason),
    }
}

fn filter(filter: &Filter) -> String {
    let names = |what: &str, names: &Option<Vec<String>>| {
        names.as_ref().map(|names| format!("{what} {}", names.join(", ")))
    };
    let parts: Vec<String> = [names("kinds", &filter.kinds), names("exchanges", &filter.exchanges)]
        .into_iter()
        .flatten()
        .collect();
    if parts.is_empty() { "everything".to_owned() } else { parts.join("; ") }
}

pub(crate) fn as_json(cursor: &CursorInfo) -> Value {
    let holder = cursor.holder.as_ref();
    json!({
        "name": cursor.name, "seq": cursor.seq, "epoch": cursor.epoch,
        "owner": holder.map(|holder| &holder.owner),
        "lease_remaining_seconds": holder.and_then(|holder| holder.remaining).map(|left| left.as_secs_f64()),
        "advanced_at": cursor.advanced_at.map(time), "created_at": cursor.created_at.map(time),
        "kinds": cursor.filter.kinds, "exchanges": cursor.filter.exchanges,
        "paused": cursor.paused.as_ref().map(|pause| json!({ "since": time(pause.since), "reason": pause.reason })),
        "identity": cursor.identity.as_ref()
            .map(|identity| json!({ "system_id": identity.system_id, "timeline": identity.timeline })),
    })
}
