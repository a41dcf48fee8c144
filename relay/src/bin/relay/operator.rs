//! What all commands of an operator have in common.

use anyhow::{Result, bail};
use clap::Args;
use db::{Db, Pooled};
use outbox::admin::{AdminStore, Order};

use crate::config::Config;
use crate::database::{address, settings};

/// How to print.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Print JSON, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Who and why. A change is recorded with it; `relay audit` shows the record.
#[derive(Args, Clone, Debug)]
pub(crate) struct Why {
    /// Why, for whoever reads the audit later.
    #[arg(long, required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Who orders it [default: the user and host].
    #[arg(long, env = "RELAY_ACTOR")]
    actor: Option<String>,
    /// Only say what would be changed.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Why {
    pub(crate) fn order(&self) -> Order {
        let reason = self.reason.clone().unwrap_or_else(|| "dry run".to_owned());
        let mut order = Order::new(self.actor.clone().unwrap_or_else(me), reason);
        order.dry_run = self.dry_run;
        order
    }

    /// "would be" or "was".
    pub(crate) fn tense(&self) -> &'static str {
        if self.dry_run { "would be" } else { "was" }
    }
}

/// What cannot be taken back.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Sure {
    /// Confirm what cannot be taken back.
    #[arg(long)]
    yes: bool,
}

impl Sure {
    pub(crate) fn check(self, why: &Why, what: &str) -> Result<()> {
        if self.yes || why.dry_run {
            return Ok(());
        }
        bail!("{what}; add --yes if that is meant, or --dry-run to see how much it is")
    }
}

/// Who works here, where nobody is named.
pub(crate) fn me() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let host = std::env::var("HOSTNAME")
        .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"))
        .unwrap_or_default();
    let user = user.unwrap_or_else(|_| "unknown".to_owned());
    let host = host.trim();
    if host.is_empty() { user } else { format!("{user}@{host}") }
}

/// A connection for one command, on a schema this program knows.
pub(crate) fn connection<C: AdminStore>(config: &Config) -> Result<Pooled<C>> {
    let settings =
        settings(config).with_pool_size(1).with_application_name("counterfoil-relay operator");
    let db = Db::<C>::open(address(config)?, settings)?;
    let mut conn = db.get::<std::convert::Infallible>()?;
    migrations::check(&mut *conn)?;
    Ok(conn)
}

/// The cursor that is meant: the one that `relay run` with the same settings moves.
pub(crate) fn cursor(config: &Config) -> String {
    crate::run::settings(config).cursor
}

/// Runs a command on whichever database is named.
macro_rules! on_database {
    ($config:expr, $command:ident($($argument:expr),*)) => {
        match $crate::database::kind($crate::database::address($config)?) {
            $crate::database::Kind::Postgres => $command::<diesel::PgConnection>($config, $($argument),*),
            $crate::database::Kind::Sqlite => $command::<diesel::SqliteConnection>($config, $($argument),*),
        }
    };
}
pub(crate) use on_database;
