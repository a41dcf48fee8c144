//! History sent again to one consumer.

mod progress;
mod send;
mod show;
mod which;

use anyhow::Result;
use clap::{Args, Subcommand, value_parser};
use outbox::admin::Order;
use outbox::replay::ReplayStore;

use self::which::Which;
use crate::config::Config;
use crate::operator::{Output, Why, connection, on_database};
use crate::output::say;

#[derive(Subcommand, Debug)]
pub(crate) enum Replay {
    /// Send a part of the kept history to one consumer's queue, and stay until it is sent.
    Start(Box<Start>),
    /// Go on with a replay that was interrupted or failed, from where it stands.
    Resume(Resume),
    /// Give a replay up for good. Whoever works on it stops behind the batch in flight.
    Cancel(Cancel),
    /// Show the last replays.
    List(List),
    /// Show one replay with everything that is recorded of it.
    Show(Show),
}

#[derive(Args, Debug)]
pub(crate) struct Start {
    /// The consumer it is for, as its inbox is named.
    #[arg(long)]
    consumer: String,
    /// The consumer's own queue [default: the consumer's name].
    #[arg(long)]
    queue: Option<String>,
    #[command(flatten)]
    which: Which,
    /// Messages a second.
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Let the consumer's handlers with side effects run, given its name once more: e-mails go out again.
    #[arg(long, value_name = "CONSUMER")]
    force_side_effects: Option<String>,
    /// Go on although the selection begins before what the log still has, or names ids that are gone.
    #[arg(long)]
    allow_gap: bool,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Resume {
    /// The replay's number.
    id: i64,
    /// Why, for whoever reads the audit later.
    #[arg(long)]
    reason: String,
    /// Who orders it [default: the user and host].
    #[arg(long, env = "RELAY_ACTOR")]
    actor: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Cancel {
    /// The replay's number.
    id: i64,
    #[command(flatten)]
    why: Why,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// At most so many, newest first.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Show {
    /// The replay's number.
    id: i64,
    #[command(flatten)]
    output: Output,
}

impl Resume {
    fn order(&self) -> Order {
        let actor = self.actor.clone().unwrap_or_else(crate::operator::me);
        Order::new(actor, self.reason.clone())
    }
}

pub(crate) fn replay(config: &Config, command: &Replay) -> Result<()> {
    match command {
        Replay::Start(options) => on_database!(config, start(options)),
        Replay::Resume(options) => on_database!(config, resume(options)),
        Replay::Cancel(options) => on_database!(config, cancel(options)),
        Replay::List(options) => on_database!(config, list(options)),
        Replay::Show(options) => on_database!(config, show(options)),
    }
}

fn start<C: ReplayStore>(config: &Config, options: &Start) -> Result<()> {
    send::start::<C>(config, options)
}

fn resume<C: ReplayStore>(config: &Config, options: &Resume) -> Result<()> {
    send::resume::<C>(config, options)
}

fn cancel<C: ReplayStore>(config: &Config, options: &Cancel) -> Result<()> {
    connection::<C>(config)?.cancel_replay(options.id, &options.why.order())?;
    say(format!(
        "replay {} {} cancelled; what was sent stays sent",
        options.id,
        options.why.tense()
    ))
}

fn list<C: ReplayStore>(config: &Config, options: &List) -> Result<()> {
    show::list(&connection::<C>(config)?.replays(options.limit)?, options.output)
}

fn show<C: ReplayStore>(config: &Config, options: &Show) -> Result<()> {
    show::one(&connection::<C>(config)?.replay(options.id)?, options.output)
}
