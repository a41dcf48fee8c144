use anyhow::{Result, bail};
use clap::Args;
use inbox::InboxConnection;
use inbox::admin::{Changed, Order, Selection};
use outbox::admin::AdminStore;

use super::Which;
use crate::config::Config;
use crate::operator::{Sure, Why, connection};
use crate::output::say;

#[derive(Args, Debug)]
pub(crate) struct Retry {
    #[command(flatten)]
    change: Change,
}

#[derive(Args, Debug)]
pub(crate) struct Discard {
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    sure: Sure,
}

#[derive(Args, Debug)]
struct Change {
    /// These numbers; else name them by --consumer, --parked-for, --key, --state or --all.
    ids: Vec<i64>,
    #[command(flatten)]
    which: Which,
    /// All of them, of every consumer.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    why: Why,
}

impl Change {
    /// Everything must be asked for by name: a forgotten flag should not mean it.
    fn selection(&self) -> Result<Selection> {
        let some = self.which.restricts();
        if !self.ids.is_empty() && (some || self.all) {
            bail!("name messages by their numbers or by what they have in common, not by both");
        }
        if self.ids.is_empty() && !some && !self.all {
            bail!(
                "which messages? Give their numbers, or name them by --consumer, --parked-for, --key or --state, or say --all"
            );
        }
        Ok(self.which.selection())
    }

    fn order(&self) -> Order {
        let outbox::admin::Order { actor, reason, dry_run } = self.why.order();
        let mut order = Order::new(actor, reason);
        order.dry_run = dry_run;
        order
    }

    fn told(&self, changed: u64, what: &str) -> Result<()> {
        let tense = self.why.tense().replace("was", "were");
        say(format!("{changed} parked messages {tense} {what}"))
    }

    fn all_told(&self, Changed { changed, behind }: Changed, what: &str) -> Result<()> {
        self.told(changed, what)?;
        if behind > 0 {
            say(format!(
                "{behind} left alone: they wait behind an earlier one of their ordering key, and follow by themselves"
            ))?;
        }
        if changed + behind == u64::from(self.which.limit) {
            say(format!(
                "There may be more: this order was for at most {} (--limit)",
                self.which.limit
            ))?;
        }
        Ok(())
    }
}

pub(super) fn retry<C: AdminStore + InboxConnection>(
    config: &Config,
    options: &Retry,
) -> Result<()> {
    let change = &options.change;
    let (which, order) = (change.selection()?, change.order());
    let mut conn = connection::<C>(config)?;
    if change.ids.is_empty() {
        let changed = inbox::admin::retry_all(&mut *conn, &which, &order)?;
        return change.all_told(changed, "made due now");
    }
    for id in &change.ids {
        inbox::admin::retry(&mut *conn, *id, &order)?;
    }
    change.told(change.ids.len() as u64, "made due now")
}

pub(super) fn discard<C: AdminStore + InboxConnection>(
    config: &Config,
    options: &Discard,
) -> Result<()> {
    let change = &options.change;
    let (which, order) = (change.selection()?, change.order());
    options
        .sure
        .check(&change.why, "a discarded message is never applied, and its content is gone")?;
    let mut conn = connection::<C>(config)?;
    if change.ids.is_empty() {
        let changed = inbox::admin::discard_all(&mut *conn, &which, &order)?;
        return change.all_told(changed, "discarded");
    }
    for id in &change.ids {
        inbox::admin::discard(&mut *conn, *id, &order)?;
    }
    change.told(change.ids.len() as u64, "discarded")
}
