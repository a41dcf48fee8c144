use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use outbox::admin::AdminStore;
use serde_json::json;

use crate::config::Config;
use crate::operator::{Output, Sure, Why, connection, on_database};
use crate::output::{self, say};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Rebase although nothing shows that the numbers are another cluster's, for example because they
    /// are lower than this cluster's.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    sure: Sure,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn rebase(config: &Config, options: &Options) -> Result<()> {
    on_database!(config, run(options))
}

fn run<C: AdminStore>(config: &Config, options: &Options) -> Result<()> {
    options.sure.check(
        &options.why,
        "rebasing renumbers the rows of the outbox for this cluster; stop the relays first",
    )?;
    let mut conn = connection::<C>(config)?;
    let order = options.why.order();
    let mut found = Vec::new();
    for cursor in conn.cursors()? {
        if let Some(foreign) = conn.foreign(&cursor.name)? {
            found.push(format!("{}: {foreign}", cursor.name));
        }
    }
    if found.is_empty() && !options.force {
        if options.output.json {
            return output::json(&json!({ "needed": false }));
        }
        return say("nothing to do: the numbers of cursors and rows are this cluster's");
    }
    let mut marked = 0;
    if !order.dry_run {
        if let Some(owner) = conn.fence()? {
            bail!(
                "{owner} holds a cursor: stop the relays first, or wait for the end of its lease"
            );
        }
        // Drawn on a terminal only.
        let bar = ProgressBar::new_spinner();
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {pos} rows, {per_sec}, {elapsed}")
        {
            bar.set_style(style);
        }
        let mut from = Some(0);
        while let Some(place) = from {
            let (rows, next) = conn.mark_piece(place)?;
            marked += rows;
            from = next;
            bar.set_position(marked);
        }
        bar.finish_and_clear();
    }
    let rebased = conn.rebase(&order)?;
    if options.output.json {
        return output::json(&json!({
            "needed": !found.is_empty(), "found": found, "cursors": rebased.cursors, "late": rebased.late,
            "pending": rebased.pending, "marked": marked, "dry_run": order.dry_run,
        }));
    }
    for line in &found {
        say(line)?;
    }
    say(format!(
        "{} cursors {} rebased: {} messages above the first of them, and {} below one that it had not handed on",
        rebased.cursors,
        options.why.tense().replace("was", "were"),
        rebased.pending,
        rebased.late
    ))?;
    if !order.dry_run {
        say(
            "start the relays; what they had handed on beside a late message may be published again",
        )?;
    }
    Ok(())
}
