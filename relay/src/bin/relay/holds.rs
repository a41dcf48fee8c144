use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use outbox::admin::{AdminStore, Changed, HoldInfo, Selection};
use outbox::reader::HoldReason;
use serde_json::{Value, json};

use crate::config::Config;
use crate::operator::{Output, Sure, Why, connection, cursor, on_database};
use crate::output::{self, or_dash, say, span, time};

#[derive(Subcommand, Debug)]
pub(crate) enum Holds {
    /// Show held messages and why they are held.
    List(List),
    /// Try dead messages again, with all their attempts.
    Retry(Change),
    /// Try waiting messages now and not at their time, as after a queue was bound.
    TryNow(Change),
    /// Give dead messages up: they are never published, and what waits behind them goes on.
    Discard(Discard),
}

#[derive(Args, Debug)]
pub(crate) struct Which {
    /// Only this place in the log; may be given several times.
    #[arg(long = "seq")]
    seqs: Vec<i64>,
    /// Only messages held for this reason, as in unroutable.
    #[arg(long = "held-for", value_name = "REASON", value_parser = reason)]
    held_for: Option<String>,
    /// Only messages of this ordering key.
    #[arg(long)]
    key: Option<String>,
    /// At most so many, in order of their place.
    #[arg(long, default_value_t = 1_000)]
    limit: u32,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// Only waiting or only dead ones.
    #[arg(long, value_enum)]
    state: Option<State>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Waiting,
    Dead,
}

#[derive(Args, Debug)]
pub(crate) struct Change {
    #[command(flatten)]
    which: Which,
    /// All of them, and not some by --seq, --held-for or --key.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    why: Why,
}

#[derive(Args, Debug)]
pub(crate) struct Discard {
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    sure: Sure,
}

fn reason(text: &str) -> Result<String, String> {
    let all = HoldReason::ALL.map(HoldReason::as_str);
    if all.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("use one of {}", all.join(", ")))
}

impl Which {
    fn selection(&self, state: Option<State>) -> Selection {
        Selection {
            seqs: (!self.seqs.is_empty()).then(|| self.seqs.clone()),
            state: state.map(|state| match state {
                State::Waiting => "waiting".to_owned(),
                State::Dead => "dead".to_owned(),
            }),
            reason: self.held_for.clone(),
            key: self.key.clone(),
            limit: self.limit,
        }
    }
}

impl Change {
    /// Everything must be asked for by name: a forgotten flag should not mean it.
    fn selection(&self) -> Result<Selection> {
        let selection = self.which.selection(None);
        let some =
            selection.seqs.is_some() || selection.reason.is_some() || selection.key.is_some();
        if !some && !self.all {
            bail!("which messages? Name them by --seq, --held-for or --key, or say --all");
        }
        Ok(selection)
    }
}

pub(crate) fn holds(config: &Config, command: &Holds) -> Result<()> {
    match command {
        Holds::List(options) => on_database!(config, list(options)),
        Holds::Retry(change) => on_database!(config, retry(change)),
        Holds::TryNow(change) => on_database!(config, try_now(change)),
        Holds::Discard(options) => on_database!(config, discard(options)),
    }
}

fn list<C: AdminStore>(config: &Config, options: &List) -> Result<()> {
    let selection = options.which.selection(options.state);
    let holds = connection::<C>(config)?.holds(&cursor(config), &selection)?;
    if options.output.json {
        return output::json(&holds.iter().map(as_json).collect());
    }
    let rows = holds.iter().map(|hold| {
        let message = hold.message.as_ref();
        vec![
            hold.seq.to_string(),
            hold.state.clone(),
            hold.reason.clone(),
            hold.attempts.to_string(),
            span(hold.held_for),
            or_dash(hold.ordering_key.clone()),
            message.map_or("gone from the log".to_owned(), |message| {
                format!("{} to {} {}", message.kind, message.exchange, message.routing_key)
            }),
            hold.last_error.clone(),
        ]
    });
    let headers =
        ["seq", "state", "reason", "attempts", "held for", "key", "message", "last error"];
    output::table(&headers, rows.collect(), "no held messages fit")?;
    if holds.len() == options.which.limit as usize && !options.output.json {
        say(format!("There may be more: only the first {} are shown (--limit)", holds.len()))?;
    }
    Ok(())
}

fn as_json(hold: &HoldInfo) -> Value {
    let message = hold.message.as_ref();
    json!({
        "seq": hold.seq, "state": hold.state, "reason": hold.reason, "attempts": hold.attempts,
        "not_before": time(hold.not_before), "held_for_seconds": hold.held_for.as_secs_f64(),
        "ordering_key": hold.ordering_key, "last_error": hold.last_error,
        "message": message.map(|message| json!({
            "id": message.id, "kind": message.kind, "operation": message.operation, "exchange": message.exchange,
            "routing_key": message.routing_key, "created_at": time(message.created_at),
        })),
    })
}

fn retry<C: AdminStore>(config: &Config, change: &Change) -> Result<()> {
    let (which, order) = (change.selection()?, change.why.order());
    let changed = connection::<C>(config)?.retry_holds(&cursor(config), &which, &order)?;
    told(change, changed, "put back to be tried again")
}

fn try_now<C: AdminStore>(config: &Config, change: &Change) -> Result<()> {
    let (which, order) = (change.selection()?, change.why.order());
    let changed = connection::<C>(config)?.try_holds_now(&cursor(config), &which, &order)?;
    told(change, changed, "made due now")
}

fn discard<C: AdminStore>(config: &Config, options: &Discard) -> Result<()> {
    let change = &options.change;
    let (which, order) = (change.selection()?, change.why.order());
    options.sure.check(&change.why, "a discarded message is never published by this cursor")?;
    let changed = connection::<C>(config)?.discard_holds(&cursor(config), &which, &order)?;
    told(change, changed, "discarded")
}

fn told(change: &Change, Changed { changed, refused }: Changed, what: &str) -> Result<()> {
    say(format!("{changed} held messages {} {what}", change.why.tense().replace("was", "were")))?;
    if refused > 0 {
        say(format!(
            "{refused} left alone: they are no messages (see their last error) or gone from the log, and can only be discarded"
        ))?;
    }
    if changed == u64::from(change.which.limit) {
        say(format!("There may be more: this order was for at most {changed} (--limit)"))?;
    }
    Ok(())
}
