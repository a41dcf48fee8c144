//! What consumers did in the world, or may have done.

mod decide;
mod look;
mod reconcile;

use anyhow::Result;
use clap::Subcommand;

use crate::config::Config;
use crate::operator::on_database;

#[derive(Subcommand, Debug)]
pub(crate) enum Effects {
    /// Show effects and how they stand.
    List(look::List),
    /// Count them by consumer, name and state.
    Counts(look::Counts),
    /// Show one of them, whole.
    Show(look::Show),
    /// Say what became of an effect whose outcome is unknown. The message that waits for it goes on.
    Decide(decide::Options),
    /// Find effects whose process has died, hand to a person what nobody can ask about, and ask a provider about the
    /// others by a program of yours.
    Reconcile(reconcile::Options),
}

pub(crate) fn effects(config: &Config, command: &Effects) -> Result<()> {
    use decide::decide;
    use look::{counts, list, show};
    use reconcile::reconcile;
    match command {
        Effects::List(options) => on_database!(config, list(options)),
        Effects::Counts(options) => on_database!(config, counts(options)),
        Effects::Show(options) => on_database!(config, show(options)),
        Effects::Decide(options) => on_database!(config, decide(options)),
        Effects::Reconcile(options) => on_database!(config, reconcile(options)),
    }
}
