use anyhow::Result;
use clap::{Args, Subcommand};
use outbox::admin::AdminStore;

use crate::config::Config;
use crate::operator::{Why, connection, on_database};
use crate::output::say;

#[derive(Subcommand, Debug)]
pub(crate) enum Wakeup {
    /// Let producers tell a relay that sleeps of their commits. Needs the owner of the tables.
    On(Options),
    /// Let them do so no longer. Relays poll.
    Off(Options),
}

#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    why: Why,
}

pub(crate) fn wakeup(config: &Config, command: &Wakeup) -> Result<()> {
    match command {
        Wakeup::On(options) => on_database!(config, set(true, options)),
        Wakeup::Off(options) => on_database!(config, set(false, options)),
    }
}

fn set<C: AdminStore>(config: &Config, on: bool, options: &Options) -> Result<()> {
    let word = if on { "on" } else { "off" };
    let mut conn = connection::<C>(config)?;
    if !conn.set_wakeup(on, &options.why.order())? {
        return say(format!("the wake-up is {word} already"));
    }
    say(format!("the wake-up {} turned {word}", options.why.tense()))?;
    if on {
        say("relays with [relay] wake = \"notify\" make use of it")?;
        if conn.facts()?.prepares {
            say(
                "this server allows PREPARE TRANSACTION: a transaction that tells a relay of its messages cannot be prepared",
            )?;
        }
    }
    Ok(())
}
