//! The producer: takes orders and payments, and tells of them in the same transactions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use db::Db;
use tokio::sync::Semaphore;

use crate::plan::Sale;
use crate::progress::Progress;
use crate::shop::{Shop, Story, Telling};

/// Orders in one business transaction.
pub(crate) const ORDERS_PER_TRANSACTION: usize = 10;

/// Takes the orders, telling of each payment, and of some once more in the transaction after. Waits for
/// room in `window`, one place per payment.
pub(crate) async fn trade<C: Shop>(
    db: Db<C>,
    exchange: String,
    sales: Vec<Sale>,
    progress: Arc<Progress>,
    window: Arc<Semaphore>,
) -> Result<()> {
    let mut again: Vec<Telling> = Vec::new();
    for placed in sales.chunks(ORDERS_PER_TRANSACTION) {
        let room = window
            .acquire_many(u32::try_from(placed.len())?)
            .await
            .context("the run was given up")?;
        // Given back when the payment is credited.
        room.forget();
        let first = placed.iter().map(|sale| Telling { sale: sale.clone(), story: Story::First });
        let told: Vec<_> = first.chain(std::mem::take(&mut again)).collect();
        let repeated = placed.iter().filter(|sale| sale.again);
        again.extend(repeated.map(|sale| Telling { sale: sale.clone(), story: Story::Again }));
        commit(&db, &exchange, placed.to_vec(), told, &progress).await?;
    }
    commit(&db, &exchange, Vec::new(), again, &progress).await
}

/// Tells of some payments with another amount. Comes after everything was credited: which of two
/// contradicting messages is right nobody can tell from the messages, so the first one counts, and
/// the demonstration wants to know which that is.
pub(crate) async fn contradict<C: Shop>(
    db: &Db<C>,
    exchange: &str,
    sales: &[Sale],
    progress: &Progress,
) -> Result<()> {
    let altered = sales.iter().filter(|sale| sale.altered.is_some());
    let told = altered.map(|sale| Telling { sale: sale.clone(), story: Story::Altered }).collect();
    commit(db, exchange, Vec::new(), told, progress).await
}

async fn commit<C: Shop>(
    db: &Db<C>,
    exchange: &str,
    placed: Vec<Sale>,
    told: Vec<Telling>,
    progress: &Progress,
) -> Result<()> {
    let (orders, exchange) = (placed.len() as u64, exchange.to_owned());
    db.call(move |conn| conn.trade(&exchange, &placed, &told))
        .await
        .context("a business transaction failed")?;
    progress.orders.fetch_add(orders, Ordering::Relaxed);
    Ok(())
}
