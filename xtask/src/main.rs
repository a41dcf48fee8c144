//! The one command list of this repository, for people and CI alike: `cargo xtask --help`.

mod bench;
mod check;
mod demo;
mod services;
mod shell;
mod signals;
mod test;
mod workspace;

use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::services::Durability;
use crate::signals::{Interrupted, Signals};

/// Builds, tests and runs Counterfoil. Prints every external command it runs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start a private PostgreSQL and RabbitMQ and print their URLs
    Services {
        /// Leave them running and return
        #[arg(long, conflicts_with = "stop")]
        detach: bool,
        /// Stop the ones left running
        #[arg(long)]
        stop: bool,
        /// Let PostgreSQL wait for the disk at every commit (fsync)
        #[arg(long, conflicts_with = "stop")]
        durable: bool,
    },
    /// Build and run every test against private services
    Test {
        /// Passed on to the test runner; with any, documentation tests are left out
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the demonstration against private services
    Demo {
        /// Passed on to the demonstration
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run one measurement of benches/src/bin against private services
    Bench {
        /// Which one; an unknown name lists them
        name: String,
        /// File for the figures
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Passed on to the measurement
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Check format, lints, documentation, licences and the rules of this repository
    Check,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match Signals::listen().and_then(|signals| run(cli.command, &signals)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref::<Interrupted>() {
                Some(Interrupted(signal)) => {
                    ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
                }
                None => ExitCode::FAILURE,
            }
        }
    }
}

fn run(task: Task, signals: &Signals) -> Result<ExitCode> {
    match task {
        Task::Services { stop: true, .. } => services::stop_detached()?,
        Task::Services { detach, durable, .. } => {
            let durability = if durable { Durability::Durable } else { Durability::Quick };
            if detach {
                services::detach(durability, signals)?;
            } else {
                services::foreground(durability, signals)?;
            }
        }
        Task::Test { args } => return Ok(code(&test::run(&args, signals)?)),
        Task::Demo { args } => return Ok(code(&[demo::run(&args, signals)?])),
        Task::Bench { name, json, args } => {
            return Ok(code(&[bench::run(&name, json, &args, signals)?]));
        }
        Task::Check => check::run(signals)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The first failure of the commands that ran, as our own exit code.
fn code(ended: &[ExitStatus]) -> ExitCode {
    match ended.iter().find(|status| !status.success()) {
        None => ExitCode::SUCCESS,
        // Ended by a signal: there is no code.
        Some(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from),
    }
}
