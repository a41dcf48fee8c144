//! The `relay` sidecar. `relay run` publishes an outbox until it is told to stop; `relay migrate`
//! creates or updates the tables; the other commands are an operator's.

mod audit;
mod broker;
mod config;
mod cursors;
mod database;
mod doctor;
mod effects;
mod holds;
mod logging;
mod migrate;
mod operator;
mod output;
mod parked;
mod pause;
mod prune;
mod rebase;
mod replay;
mod roles;
mod run;
mod serve;
mod status;
mod wakeup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Overrides;

/// Publishes a transactional outbox from PostgreSQL or SQLite to RabbitMQ.
///
/// Settings come from a file (--config), then from the environment, then from flags; the later one
/// wins. Keep passwords in the environment or in a file of their own.
#[derive(Parser)]
#[command(name = "relay", version)]
struct Cli {
    #[command(flatten)]
    overrides: Overrides,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish until SIGTERM or Ctrl-C: then settle what is in flight and exit with 0. A second
    /// signal exits at once; what was in flight is published again.
    Run,
    /// Create or update the tables. Safe to run from several places at once.
    Migrate(migrate::Options),
    /// Create the PostgreSQL roles of producer, relay, consumer and admin, with the least rights.
    Roles(roles::Options),
    /// Show how it stands: cursors, what is pending, what is held, who holds back vacuum.
    Status(operator::Output),
    /// Look at everything the relay depends on, and say what is wrong and what to do about it. Exits
    /// with 1 when something keeps the relay from its work.
    Doctor(operator::Output),
    /// Show, make and remove cursors.
    #[command(subcommand)]
    Cursors(cursors::Cursors),
    /// Show held messages and decide about them.
    #[command(subcommand)]
    Holds(holds::Holds),
    /// Show what consumers could not apply, and decide about it. On the consumer's database.
    #[command(subcommand)]
    Parked(parked::Parked),
    /// Show what consumers did in the world, and decide what became of it where nobody knows. On the consumer's
    /// database.
    #[command(subcommand)]
    Effects(effects::Effects),
    /// Stop handing messages on. The relay goes on running and keeps its lease.
    Pause(pause::Options),
    /// Hand messages on again.
    Resume(pause::Options),
    /// Let producers tell an idle relay of their commits, or no longer.
    #[command(subcommand)]
    Wakeup(wakeup::Wakeup),
    /// Delete messages that were published long ago.
    Prune(prune::Options),
    /// Make a database that was restored from a dump, or copied, this cluster's own. Every message that
    /// was not published yet stays to be published.
    Rebase(rebase::Options),
    /// Send kept history again, to one consumer.
    #[command(subcommand)]
    Replay(replay::Replay),
    /// Show what operators changed, who and why.
    Audit(audit::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = config::load(&cli.overrides).and_then(|config| {
        logging::init(&config.log)?;
        if !matches!(&cli.command, Command::Migrate(options) if options.makes_tables()) {
            database::must_exist(&config)?;
        }
        match cli.command {
            Command::Run => run::run(&config),
            Command::Migrate(options) => migrate::migrate(&config, &options),
            Command::Roles(options) => roles::roles(&config, &options),
            Command::Status(output) => status::status(&config, output),
            Command::Doctor(output) => doctor::doctor(&config, output),
            Command::Cursors(command) => cursors::cursors(&config, &command),
            Command::Holds(command) => holds::holds(&config, &command),
            Command::Parked(command) => parked::parked(&config, &command),
            Command::Effects(command) => effects::effects(&config, &command),
            Command::Pause(options) => pause::pause(&config, &options),
            Command::Resume(options) => pause::resume(&config, &options),
            Command::Wakeup(command) => wakeup::wakeup(&config, &command),
            Command::Prune(options) => prune::prune(&config, &options),
            Command::Rebase(options) => rebase::rebase(&config, &options),
            Command::Replay(command) => replay::replay(&config, &command),
            Command::Audit(options) => audit::audit(&config, &options),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {}", on_one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// The whole chain, for people and for log collectors. Without the causes that those above them have told already.
fn on_one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(|cause| cause.to_string().trim().replace('\n', " ")) {
        if !line.contains(&cause) {
            line += if line.is_empty() { "" } else { ": " };
            line += &cause;
        }
    }
    line
}
