//! `cargo xtask demo`: the demonstration against private, durable services.

use std::process::{Command, ExitStatus};

use anyhow::Result;

use crate::services::install::{self, Need};
use crate::services::{Durability, Services, given};
use crate::signals::Signals;
use crate::{shell, workspace};

const DATABASE: &str = "--database-url";
const AMQP: &str = "--amqp-url";
const SELECTION: [&str; 4] = ["--package", "counterfoil-demo", "--features", "services"];

/// Runs the demonstration with `args`; a URL among them or in the environment is used as it is.
pub(crate) fn run(args: &[String], signals: &Signals) -> Result<ExitStatus> {
    install::ensure(&[Need::Libpq], signals)?;
    shell::succeed(cargo("build").args(SELECTION), signals)?;
    let database_url = value(args, DATABASE).or_else(|| given("DATABASE_URL"));
    let amqp_url = value(args, AMQP).or_else(|| given("AMQP_URL"));
    let services = Services::start_given(database_url, amqp_url, Durability::Durable, signals)?;
    let mut demo = cargo("run");
    // Quiet, or cargo would print the URLs with their passwords.
    demo.args(SELECTION).args(["--quiet", "--"]);
    for (flag, url) in [(DATABASE, services.database_url()), (AMQP, services.amqp_url())] {
        if value(args, flag).is_none() {
            demo.args([flag, url]);
        }
    }
    shell::run(demo.args(args), signals)
}

fn cargo(command: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.arg(command).current_dir(workspace::root());
    cargo
}

/// The value of an option given as `--name value` or `--name=value`.
fn value(args: &[String], name: &str) -> Option<String> {
    args.iter().enumerate().find_map(|(index, arg)| {
        if arg == name {
            return args.get(index + 1).cloned();
        }
        arg.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_option_are_understood() {
        let args = ["--speed", "2", "--database-url", "a", "--amqp-url=b"].map(str::to_owned);
        assert_eq!(value(&args, DATABASE).as_deref(), Some("a"));
        assert_eq!(value(&args, AMQP).as_deref(), Some("b"));
        assert_eq!(value(&args[..2], AMQP), None);
    }
}
