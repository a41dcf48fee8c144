use std::time::{Duration, Instant};

use anyhow::Result;
use db::Db;
use diesel::QueryResult;

use crate::broker::{Broker, Names};
use crate::databases::Databases;
use crate::shop::{Announced, Repeats, Shop};
use crate::{billing, naive};

const LOOK: Duration = Duration::from_millis(100);
/// After so long without any change nothing more is expected.
const STALLED: Duration = Duration::from_secs(45);
/// The relay's cursor, by its default name.
const CURSOR: &str = "relay";

/// Where everything stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) announced: Announced,
    pub(crate) repeats: Repeats,
    /// Committed and not published.
    pub(crate) pending: i64,
    /// In the queues.
    pub(crate) waiting: u64,
    billing: i64,
    naive: i64,
}

impl Standing {
    pub(crate) async fn look<C: Shop>(
        databases: &Databases<C>,
        broker: &Broker,
        names: &Names,
    ) -> Result<Self> {
        Ok(Self {
            announced: ask(&databases.shop, C::announced).await?,
            pending: ask(&databases.shop, |conn| conn.pending(CURSOR)).await?,
            repeats: ask(&databases.billing, |conn| conn.repeats(billing::CONSUMER)).await?,
            billing: ask(&databases.billing, |conn| conn.credit_count(billing::CONSUMER)).await?,
            naive: ask(&databases.naive, |conn| conn.credit_count(naive::CONSUMER)).await?,
            waiting: broker.waiting(names).await?,
        })
    }

    /// Everything published and nothing left in the queues.
    #[cfg(test)]
    pub(crate) const fn made(announced: Announced, repeats: Repeats) -> Self {
        Self { announced, repeats, pending: 0, waiting: 0, billing: 0, naive: 0 }
    }

    /// Whether everything told so far has arrived everywhere.
    const fn is_settled(&self) -> bool {
        let told = &self.announced;
        told.first > 0
            && self.pending == 0
            && self.waiting == 0
            && self.billing >= told.first
            && self.naive >= told.total()
            && self.repeats.duplicates >= told.again
            && self.repeats.conflicts >= told.altered
    }
}

/// Waits until everything told so far has arrived everywhere and nothing moves any more, or until
/// nothing has moved for so long that it never will; the check of the figures then says what is missing.
pub(crate) async fn wait<C: Shop>(
    databases: &Databases<C>,
    broker: &Broker,
    names: &Names,
) -> Result<Standing> {
    let mut last = None;
    let mut changed = Instant::now();
    loop {
        let standing = Standing::look(databases, broker, names).await?;
        if last != Some(standing) {
            changed = Instant::now();
        } else if standing.is_settled() || changed.elapsed() > STALLED {
            return Ok(standing);
        }
        last = Some(standing);
        tokio::time::sleep(LOOK).await;
    }
}

pub(crate) async fn ask<C: Shop, T: Send + 'static>(
    db: &Db<C>,
    question: impl FnOnce(&mut C) -> QueryResult<T> + Send + 'static,
) -> Result<T> {
    Ok(db.call(question).await?)
}
