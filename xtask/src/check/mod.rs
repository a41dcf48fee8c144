//! `cargo xtask check`: format, lints, documentation, licences and the rules of this repository.

mod edges;
mod forbidden;
mod lexer;
mod migrations;
mod places;
mod source;
mod suites;
mod tables;
mod twins;

use std::fmt;
use std::process::Command;

use anyhow::{Result, bail};

use self::source::Source;
use crate::services::install::{self, Need};
use crate::signals::Signals;
use crate::{shell, workspace};

/// A rule broken at a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    file: String,
    line: usize,
    /// What is wrong, and the remedy.
    message: String,
}

impl Violation {
    fn new(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// A rule that looks at the files alone.
type Rule = fn(&[Source]) -> Vec<Violation>;

const RULES: [(&str, Rule); 6] = [
    ("names in their place", places::check),
    ("tables and their owners", tables::check),
    ("store twins", twins::check),
    ("migration twins", migrations::check),
    ("test suites are complete", suites::check),
    ("forbidden text", forbidden::check),
];

/// Runs every check, the quick ones first, and fails if any failed.
pub(crate) fn run(signals: &Signals) -> Result<()> {
    install::ensure(&[Need::Libpq], signals)?;
    let mut failed = Vec::new();
    let mut step = |name: &'static str, passed: bool| {
        if !passed {
            failed.push(name);
        }
    };
    step("format", cargo(&["fmt", "--all", "--check"], &[], signals)?);
    step("rules", rules()?);
    let clippy = ["clippy", "--workspace", "--all-targets", "--all-features"];
    let strict = ["--", "-D", "warnings"];
    step("clippy", cargo(&[&clippy[..], &strict[..]].concat(), &[], signals)?);
    // As a service builds them that has one of the databases: what only the other one uses is dead code there.
    for (name, database) in
        [("clippy with SQLite alone", "sqlite"), ("clippy with PostgreSQL alone", "postgres")]
    {
        let packages =
            ["migrations", "db", "outbox", "inbox"].map(|part| format!("counterfoil-{part}"));
        let mut one = vec!["clippy", "--features", database];
        packages.iter().for_each(|package| one.extend(["-p", package]));
        step(name, cargo(&[&one[..], &strict[..]].concat(), &[], signals)?);
    }
    let doc = ["doc", "--workspace", "--no-deps", "--all-features"];
    step("documentation", cargo(&doc, &[("RUSTDOCFLAGS", "-D warnings")], signals)?);
    step("dependencies", deny(signals)?);
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
    eprintln!("check passed");
    Ok(())
}

fn cargo(args: &[&str], env: &[(&str, &str)], signals: &Signals) -> Result<bool> {
    let mut cargo = Command::new("cargo");
    cargo.args(args).envs(env.iter().copied()).current_dir(workspace::root());
    let status = shell::run(&mut cargo, signals)?;
    signals.check()?;
    Ok(status.success())
}

fn deny(signals: &Signals) -> Result<bool> {
    if !shell::works("cargo", &["deny", "--version"]) {
        eprintln!(
            "cargo-deny is not installed: bans, licences and sources are not checked here \
             (cargo install --locked cargo-deny)"
        );
        return Ok(true);
    }
    cargo(&["deny", "check", "bans", "licenses", "sources"], &[], signals)
}

fn rules() -> Result<bool> {
    let sources = source::read(&workspace::root())?;
    let mut violations = edges::check()?;
    report("dependency edges", &violations);
    for (name, rule) in RULES {
        let found = rule(&sources);
        report(name, &found);
        violations.extend(found);
    }
    Ok(violations.is_empty())
}

fn report(name: &str, violations: &[Violation]) {
    let verdict = if violations.is_empty() { "ok" } else { "BROKEN" };
    eprintln!("rule: {name}: {verdict}");
    for violation in violations {
        eprintln!("  {violation}");
    }
}

/// Lines and messages of what a rule finds in samples, for its tests.
#[cfg(test)]
fn found(rule: Rule, samples: &[(&str, &str)]) -> Vec<(String, usize)> {
    let sources: Vec<_> = samples.iter().map(|(path, text)| Source::new(*path, *text)).collect();
    rule(&sources).into_iter().map(|violation| (violation.file, violation.line)).collect()
}
