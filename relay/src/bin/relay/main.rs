//! The `relay` sidecar. `relay run` publishes an outbox until it is told to stop; `relay migrate`
//! creates or updates the tables.

mod config;
mod database;
mod logging;
mod migrate;
mod run;

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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = config::load(&cli.overrides).and_then(|config| {
        logging::init(&config.log)?;
        match cli.command {
            Command::Run => run::run(&config),
            Command::Migrate(options) => migrate::migrate(&config, &options),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain on one line, for people and for log collectors.
            eprintln!("relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}
