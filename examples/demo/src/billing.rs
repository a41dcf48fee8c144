//! The consumer with an inbox. Credits what it is told of, as the naive one does; everything else is
//! the inbox's work.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;
use db::Db;
use inbox::{Consumer, Ending, Inbox, ReplaySafe};
use tokio::sync::Semaphore;
use transport::Subscriber;

use crate::event::PaymentSucceeded;
use crate::progress::Progress;
use crate::shop::Shop;

/// Its name, in its queue and in the database.
pub(crate) const CONSUMER: &str = "billing";

/// Credits each payment once until told to stop. Each payment credited makes room for another one in
/// `window`.
pub(crate) async fn run<C: Shop>(
    db: Db<C>,
    subscriber: Arc<dyn Subscriber>,
    queue: &str,
    workers: usize,
    progress: Arc<Progress>,
    window: Arc<Semaphore>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let inbox = Inbox::new(Consumer(CONSUMER), db, subscriber, queue)
        .concurrency(workers)
        .on(ReplaySafe, |tx: &mut C, paid: &PaymentSucceeded, _context| {
            tx.credit(CONSUMER, paid)?;
            Ok(paid.cents)
        })
        .observe(move |ended| {
            if ended.ending == Ending::Applied {
                progress.billing.fetch_add(1, Ordering::Relaxed);
                window.add_permits(1);
            }
        })
        .build()?;
    Ok(inbox.run(stop).await?)
}
