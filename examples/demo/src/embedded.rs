use anyhow::{Context, Result};
use db::{Db, Settings};
use diesel::SqliteConnection;
use tempfile::TempDir;

use crate::broker::{Broker, Names};
use crate::cli::Story;
use crate::databases::Databases;
use crate::figures::{Figures, Provoked};
use crate::story::{self, Wanted};

/// SQLite has one writer at a time; more workers would only wait for each other.
pub(crate) const WORKERS: usize = 1;
const CONNECTIONS: u32 = 6;

/// Plays the story on SQLite and the in-process broker. Leaves nothing behind.
pub(crate) async fn play(story: &Story) -> Result<(Figures, Provoked)> {
    let (_dir, databases) = databases().await?;
    let wanted = Wanted {
        orders: story.orders,
        seed: story.seed,
        style: crate::style(story),
        workers: WORKERS,
    };
    story::play(&databases, &Broker::memory(), &Names::of("shop"), wanted).await
}

/// A file for each party, in a folder that goes when it is dropped.
pub(crate) async fn databases() -> Result<(TempDir, Databases<SqliteConnection>)> {
    let dir = tempfile::Builder::new()
        .prefix("counterfoil-demo-")
        .tempdir()
        .context("no temporary folder")?;
    let databases = Databases {
        shop: open(&dir, "shop.db").await?,
        billing: open(&dir, "billing.db").await?,
        naive: open(&dir, "naive.db").await?,
    };
    Ok((dir, databases))
}

async fn open(dir: &TempDir, name: &str) -> Result<Db<SqliteConnection>> {
    let path = dir.path().join(name);
    let path = path.to_str().context("the temporary folder's name is not UTF-8")?;
    Ok(Db::connect(path, Settings::default().with_pool_size(CONNECTIONS)).await?)
}
