use std::time::Duration;

use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use outbox::admin::AdminStore;
use serde_json::json;

use crate::config::Config;
use crate::operator::{Output, Sure, Why, connection, on_database};
use crate::output::{self, say, span};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Delete what is older than this, as in 30d, once every cursor has handed it on and none holds it.
    #[arg(long, value_parser = crate::config::duration)]
    older_than: Duration,
    /// Rows deleted in one transaction.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    sure: Sure,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn prune(config: &Config, options: &Options) -> Result<()> {
    on_database!(config, run(options))
}

fn run<C: AdminStore>(config: &Config, options: &Options) -> Result<()> {
    let age = span(options.older_than);
    options.sure.check(
        &options.why,
        &format!("pruning deletes published messages older than {age} for good"),
    )?;
    let mut conn = connection::<C>(config)?;
    let order = options.why.order();
    if !order.dry_run {
        let detail = json!({ "older_than_seconds": options.older_than.as_secs() });
        conn.record(&order, "prune", None, &detail.to_string())?;
    }
    // Drawn on a terminal only.
    let bar = ProgressBar::new_spinner();
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {pos} messages, {per_sec}, {elapsed}")
    {
        bar.set_style(style);
    }
    let (mut from, mut deleted) = (0, 0);
    loop {
        let batch = if order.dry_run {
            conn.purgeable(options.older_than, from, options.batch)?
        } else {
            conn.purge(options.older_than, from, options.batch)?
        };
        deleted += batch.deleted;
        from = batch.next;
        bar.set_position(deleted);
        if batch.done {
            break;
        }
    }
    bar.finish_and_clear();
    if options.output.json {
        return output::json(&json!({ "deleted": deleted, "dry_run": order.dry_run }));
    }
    say(format!(
        "{deleted} messages older than {age} {} deleted",
        options.why.tense().replace("was", "were")
    ))?;
    if deleted == 0 && conn.cursors()?.is_empty() {
        say("There is no cursor, so nothing counts as handed on")?;
    }
    Ok(())
}
