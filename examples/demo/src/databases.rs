use anyhow::{Context, Result};
use db::Db;

use crate::shop::Shop;

/// Where each party keeps its state. Embedded, each has a file of its own, as services have databases
/// of their own; on PostgreSQL they share one.
#[derive(Clone)]
pub(crate) struct Databases<C: Shop> {
    pub(crate) shop: Db<C>,
    pub(crate) billing: Db<C>,
    pub(crate) naive: Db<C>,
}

impl<C: Shop> Databases<C> {
    /// Makes all tables in each; what is there stays.
    pub(crate) async fn migrate(&self) -> Result<()> {
        for db in [&self.shop, &self.billing, &self.naive] {
            db.call(|conn| conn.migrate().map_err(Failed))
                .await
                .context("the tables cannot be made")?;
        }
        Ok(())
    }
}

/// `anyhow::Error` is no `std::error::Error` itself.
#[derive(Debug)]
struct Failed(anyhow::Error);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for Failed {}
