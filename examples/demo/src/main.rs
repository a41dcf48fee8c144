//! A shop whose payments are told more than once, and two consumers: a naive one, and one with an inbox.
//!
//! `cargo demo` plays the whole story in one process with nothing installed; `cargo xtask demo` on
//! PostgreSQL and RabbitMQ. The subcommands play it in separate processes. Exits with 0 only if the
//! inbox's books are right, the naive ones are not, and every fault really happened.

mod billing;
mod broker;
mod cli;
mod databases;
mod embedded;
mod event;
mod faults;
mod figures;
mod naive;
mod plan;
mod progress;
mod relays;
mod report;
#[cfg(feature = "services")]
mod services;
mod settled;
mod shop;
#[cfg(feature = "services")]
mod steps;
mod story;
mod till;
mod verdict;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::cli::{Cli, Step, Story};
use crate::figures::{Figures, Provoked};
use crate::progress::Style;

#[tokio::main]
async fn main() -> ExitCode {
    run(Cli::parse()).await.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.step {
        Some(step) => separately(step).await,
        None if cli.story.database_url.is_some() || cli.story.amqp_url.is_some() => {
            on_services(cli.story).await
        }
        None => {
            let (figures, provoked) = embedded::play(&cli.story).await?;
            Ok(conclude(&figures, Some(&provoked)))
        }
    }
}

#[cfg(feature = "services")]
async fn on_services(story: Story) -> Result<ExitCode> {
    let (figures, provoked) = services::play(&story).await?;
    Ok(conclude(&figures, Some(&provoked)))
}

#[cfg(not(feature = "services"))]
async fn on_services(_: Story) -> Result<ExitCode> {
    anyhow::bail!("{WITHOUT_SERVICES}")
}

#[cfg(feature = "services")]
async fn separately(step: Step) -> Result<ExitCode> {
    steps::run(step).await
}

#[cfg(not(feature = "services"))]
async fn separately(_: Step) -> Result<ExitCode> {
    anyhow::bail!("{WITHOUT_SERVICES}")
}

#[cfg(not(feature = "services"))]
const WITHOUT_SERVICES: &str = "this program was built for SQLite and the in-process broker only; run `cargo xtask \
    demo` for PostgreSQL and RabbitMQ (or build with `--features services`)";

/// Progress as bars only where somebody can see them.
fn style(story: &Story) -> Style {
    match (story.quiet, std::io::stdout().is_terminal()) {
        (true, _) => Style::Quiet,
        (false, true) => Style::Bars,
        (false, false) => Style::Lines,
    }
}

/// Prints the books and the verdict on them.
fn conclude(figures: &Figures, provoked: Option<&Provoked>) -> ExitCode {
    println!("\n{}\n", report::tables(figures, provoked));
    let problems = verdict::problems(figures, provoked);
    if problems.is_empty() {
        println!(
            "The inbox is right to the cent; the naive consumer is not. Every fault happened."
        );
        return ExitCode::SUCCESS;
    }
    eprintln!("error: the demonstration failed:");
    problems.iter().for_each(|problem| eprintln!("  - {problem}"));
    ExitCode::FAILURE
}
