use anyhow::{Result, bail};
use clap::Args;
use db::Db;
use diesel::{PgConnection, SqliteConnection};
use migrations::Migrate;

use crate::config::Config;
use crate::database::{Kind, address, kind, settings};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only show what is applied.
    #[arg(long, conflicts_with = "revert_last")]
    status: bool,
    /// Revert the newest migration. The data in its tables is lost: needs --yes.
    #[arg(long)]
    revert_last: bool,
    /// Confirm that data may be lost.
    #[arg(long)]
    yes: bool,
}

impl Options {
    /// Whether it is to work on a database that has nothing yet.
    pub(crate) const fn makes_tables(&self) -> bool {
        !self.status && !self.revert_last
    }
}

pub(crate) fn migrate(config: &Config, options: &Options) -> Result<()> {
    match kind(address(config)?) {
        Kind::Postgres => on::<PgConnection>(config, options),
        Kind::Sqlite => on::<SqliteConnection>(config, options),
    }
}

fn on<C: Migrate + db::Backend>(config: &Config, options: &Options) -> Result<()> {
    let db = Db::<C>::open(address(config)?, settings(config))?;
    let mut conn = db.get::<std::convert::Infallible>()?;
    if options.status {
        for stamp in migrations::applied(&mut *conn)? {
            println!("{} {}", stamp.version, stamp.name);
        }
        migrations::check(&mut *conn)?;
        println!("{} is current", db.address());
        return Ok(());
    }
    if options.revert_last {
        if !options.yes {
            bail!("--revert-last drops tables with what is in them; add --yes if that is meant");
        }
        match migrations::revert_last(&mut *conn)? {
            Some(name) => println!("reverted {name} on {}", db.address()),
            None => println!("nothing to revert on {}", db.address()),
        }
        return Ok(());
    }
    let applied = migrations::run(&mut *conn)?;
    for name in &applied {
        println!("applied {name} on {}", db.address());
    }
    if applied.is_empty() {
        println!("{} is current", db.address());
    }
    Ok(())
}
