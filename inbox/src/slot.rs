use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The right to work on one delivery.
pub(crate) struct Slot {
    permits: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Slot {
    pub(crate) async fn take(permits: &Arc<Semaphore>) -> Self {
        // The semaphore is never closed.
        let held = permits.clone().acquire_owned().await.ok();
        Self { permits: permits.clone(), held }
    }

    /// Lets others work for so long; false when told to stop meanwhile. How many deliveries can be
    /// put off like this is bounded by the prefetch.
    pub(crate) async fn lend(&mut self, pause: Duration, stop: &CancellationToken) -> bool {
        self.held = None;
        let back = async {
            sleep(pause).await;
            self.permits.clone().acquire_owned().await.ok()
        };
        select! {
            biased;
            () = stop.cancelled() => false,
            held = back => {
                self.held = held;
                true
            }
        }
    }
}
