//! The consumer as it is often written: everything in a transaction, acknowledged after the commit, and
//! still wrong, because the same payment comes more than once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use db::Db;
use diesel::result::Error;
use tokio::select;
use tokio_util::sync::CancellationToken;
use transport::{Delivery, Subscriber, Subscription};

use crate::event::PaymentSucceeded;
use crate::progress::Progress;
use crate::shop::Shop;

/// Its name, in its queue and in the database.
pub(crate) const CONSUMER: &str = "naive";
const PREFETCH: u16 = 16;
const PAUSE: Duration = Duration::from_millis(100);

/// Credits every delivery until told to stop.
pub(crate) async fn run<C: Shop>(
    db: Db<C>,
    subscriber: Arc<dyn Subscriber>,
    queue: String,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        let subscribed = select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            subscribed = subscriber.subscribe(&queue, PREFETCH) => subscribed,
        };
        if let Ok(mut subscription) = subscribed {
            loop {
                let received = select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    received = receive(&mut *subscription) => received,
                };
                let Some(delivery) = received else { break };
                if !credit(&db, delivery, &progress).await? {
                    break;
                }
            }
        }
        select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn receive(subscription: &mut dyn Subscription) -> Option<Delivery> {
    subscription.receive().await.ok()
}

/// Whether the broker heard the answer.
async fn credit<C: Shop>(db: &Db<C>, delivery: Delivery, progress: &Progress) -> Result<bool> {
    let paid: PaymentSucceeded = serde_json::from_slice(&delivery.payload)
        .context("the naive consumer cannot read a payment")?;
    db.call(move |conn| conn.write(|tx| tx.credit(CONSUMER, &paid)))
        .await
        .map_err(|error: db::CallError<Error>| error)
        .context("the naive consumer cannot credit a payment")?;
    progress.naive.fetch_add(1, Ordering::Relaxed);
    Ok(delivery.acker.ack().await.is_ok())
}
