use anyhow::Result;
use clap::Args;
use outbox::admin::AdminStore;

use crate::config::Config;
use crate::operator::{Why, connection, cursor, on_database};
use crate::output::say;

#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    why: Why,
}

pub(crate) fn pause(config: &Config, options: &Options) -> Result<()> {
    on_database!(config, paused(options))
}

pub(crate) fn resume(config: &Config, options: &Options) -> Result<()> {
    on_database!(config, resumed(options))
}

fn paused<C: AdminStore>(config: &Config, options: &Options) -> Result<()> {
    let cursor = cursor(config);
    connection::<C>(config)?.pause(&cursor, &options.why.order())?;
    say(format!(
        "cursor {cursor:?} {} paused: its relay hands nothing on until `relay resume`",
        options.why.tense()
    ))
}

fn resumed<C: AdminStore>(config: &Config, options: &Options) -> Result<()> {
    let cursor = cursor(config);
    if connection::<C>(config)?.resume(&cursor, &options.why.order())? {
        return say(format!("cursor {cursor:?} {} resumed", options.why.tense()));
    }
    say(format!("cursor {cursor:?} is not paused"))
}
