//! `cargo xtask test`: every test of the workspace against private services.

use std::process::{Command, ExitStatus};

use anyhow::Result;

use crate::services::install::{self, Need};
use crate::services::{Durability, Services};
use crate::signals::Signals;
use crate::{shell, workspace};

/// One feature set for every step, so that no crate is built twice.
const WHOLE: [&str; 2] = ["--workspace", "--all-features"];

/// Builds and runs the tests; `args` go to the test runner.
pub(crate) fn run(args: &[String], signals: &Signals) -> Result<Vec<ExitStatus>> {
    install::ensure(&needs(), signals)?;
    // Before the services: a build that fails needs none. Test targets are named so that features
    // of development dependencies are in, and the runner finds everything built.
    shell::succeed(cargo(&["build"]).args(WHOLE).args(["--bins", "--tests"]), signals)?;

    let services = Services::start(Durability::Quick, signals)?;
    let mut ended = Vec::new();
    let nextest = shell::works("cargo", &["nextest", "--version"]);
    if nextest && args.is_empty() {
        // nextest does not run them. First, so that the last lines are the runner's summary.
        let mut doc = cargo(&["test", "--doc"]);
        services.lend(doc.args(WHOLE));
        ended.push(shell::run(&mut doc, signals)?);
    }
    // All of it, whatever fails first: one run is to show everything that is wrong.
    let runner = if nextest {
        &["nextest", "run", "--no-fail-fast"][..]
    } else {
        &["test", "--no-fail-fast"]
    };
    let mut runner = cargo(runner);
    services.lend(runner.args(WHOLE).args(args));
    ended.push(shell::run(&mut runner, signals)?);
    if ended.first().is_some_and(|doc| ended.len() > 1 && !doc.success()) {
        eprintln!("error: documentation tests failed, see above");
    }
    Ok(ended)
}

/// What the run needs on this machine, so that a missing package is known before the build.
fn needs() -> Vec<Need> {
    // The two servers whatever URLs are given: some faults are provoked on servers of the test's own.
    vec![
        Need::Libpq,
        Need::Postgres,
        Need::RabbitMq,
        Need::PgBouncer,
        Need::FakeTime,
        Need::OpenSsl,
    ]
}

fn cargo(args: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(args).current_dir(workspace::root());
    cargo
}
