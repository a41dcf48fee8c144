//! What consumers could not apply.

mod decide;
mod look;

use anyhow::Result;
use clap::{Args, Subcommand};
use inbox::admin::Selection;
use inbox::{ParkedState, Reason};

use crate::config::Config;
use crate::operator::on_database;

#[derive(Subcommand, Debug)]
pub(crate) enum Parked {
    /// Show parked messages and why they are parked.
    List(look::List),
    /// Count them by consumer, state and reason.
    Counts(look::Counts),
    /// Show one of them, whole.
    Show(look::Show),
    /// Try messages again now, whether they wait for their time or for a person.
    Retry(decide::Retry),
    /// Give messages up: they are never applied, and the next of their ordering key goes on.
    Discard(decide::Discard),
}

#[derive(Args, Debug)]
struct Which {
    /// Only this consumer's.
    #[arg(long)]
    consumer: Option<String>,
    /// Only those that wait for their time (retry), for an earlier one (behind) or for a person (review).
    #[arg(long, value_parser = state)]
    state: Option<ParkedState>,
    /// Only messages parked for this reason, as in conflict.
    #[arg(long, value_name = "REASON", value_parser = reason)]
    parked_for: Option<Reason>,
    /// Only messages of this ordering key.
    #[arg(long)]
    key: Option<String>,
    /// Only numbers above this one.
    #[arg(long, default_value_t = 0)]
    after: i64,
    /// At most so many, in order of their numbers.
    #[arg(long, default_value_t = 1_000)]
    limit: u32,
}

impl Which {
    fn selection(&self) -> Selection {
        Selection {
            ids: None,
            consumer: self.consumer.clone(),
            state: self.state,
            reason: self.parked_for,
            key: self.key.clone(),
            after: self.after,
            limit: self.limit,
        }
    }

    /// Whether anything but the bounds restricts it.
    fn restricts(&self) -> bool {
        self.consumer.is_some()
            || self.state.is_some()
            || self.parked_for.is_some()
            || self.key.is_some()
    }
}

fn state(text: &str) -> Result<ParkedState, String> {
    let all = ParkedState::ALL;
    let names = all.map(ParkedState::as_str).join(", ");
    all.into_iter().find(|state| state.as_str() == text).ok_or(format!("use one of {names}"))
}

fn reason(text: &str) -> Result<Reason, String> {
    let all = Reason::ALL;
    let names = all.map(Reason::as_str).join(", ");
    all.into_iter().find(|reason| reason.as_str() == text).ok_or(format!("use one of {names}"))
}

pub(crate) fn parked(config: &Config, command: &Parked) -> Result<()> {
    use decide::{discard, retry};
    use look::{counts, list, show};
    match command {
        Parked::List(options) => on_database!(config, list(options)),
        Parked::Counts(options) => on_database!(config, counts(options)),
        Parked::Show(options) => on_database!(config, show(options)),
        Parked::Retry(options) => on_database!(config, retry(options)),
        Parked::Discard(options) => on_database!(config, discard(options)),
    }
}
