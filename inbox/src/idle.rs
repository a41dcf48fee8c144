use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::select;
use tokio::task::unconstrained;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use transport::{Subscription, Unavailable};

use crate::RunError;
use crate::builder::InboxConnection;
use crate::effect::Reconciler;
use crate::lot::Lot;
use crate::outstanding::Outstanding;
use crate::receiving::{Receiving, given_up};

/// How long a delivery that the broker may be about to send is waited for before the queue is counted again:
/// another consumer may have taken it, or there is none.
const ON_ITS_WAY: Duration = Duration::from_millis(20);

impl<C: InboxConnection> Receiving<C> {
    /// Until nothing is left to do.
    pub(crate) async fn until_idle(mut self, reconciler: &Reconciler) -> Result<(), RunError> {
        let mut lot = Lot::new(self.engine.clone(), self.lanes.clone());
        loop {
            let mut subscription = self.subscribe().await?;
            let (among, lost) = (Arc::new(Outstanding::default()), CancellationToken::new());
            let drained = select! {
                biased;
                () = lost.cancelled() => Err(given_up()),
                drained = self.drain(&mut *subscription, &mut lot, reconciler, &among, &lost) => drained,
            };
            match drained {
                Ok(()) => {
                    self.finish(Some(subscription)).await;
                    return Ok(());
                }
                Err(error) => {
                    lost.cancel();
                    self.ended(subscription, &error);
                    self.pause().await;
                }
            }
        }
    }

    async fn drain(
        &mut self,
        subscription: &mut dyn Subscription,
        lot: &mut Lot<C>,
        reconciler: &Reconciler,
        among: &Arc<Outstanding>,
        lost: &CancellationToken,
    ) -> Result<(), Unavailable> {
        loop {
            let waiting = subscription.waiting().await?;
            let mut received = 0;
            // Polled beside the task's budget: one that is used up would look like an empty queue.
            while let Some(delivery) = unconstrained(subscription.receive()).now_or_never() {
                self.hand_on(delivery?, among, lost).await;
                received += 1;
            }
            among.all_answered().await;
            let looked_after = async {
                let retried = lot.clear().await?;
                // What is decided about an effect lets its message go on.
                let decided = reconciler.round().await.map_err(|error| error.to_string())?;
                Ok::<_, String>(retried || decided.decided())
            };
            let more = match looked_after.await {
                Ok(more) => more,
                Err(reason) => {
                    let consumer = &self.engine.consumer;
                    tracing::warn!(consumer, reason, "cannot look after what is parked");
                    self.pause().await;
                    continue;
                }
            };
            if received > 0 || more {
                continue;
            }
            if let Ok(delivery) = timeout(ON_ITS_WAY, subscription.receive()).await {
                self.hand_on(delivery?, among, lost).await;
                continue;
            }
            // Once is not enough: what is counted no more may arrive behind the count. What is parked is not looked
            // at again: with short pauses between its tries something is due whenever somebody looks.
            if waiting == 0 && subscription.waiting().await? == 0 {
                match unconstrained(subscription.receive()).now_or_never() {
                    Some(delivery) => self.hand_on(delivery?, among, lost).await,
                    None => return Ok(()),
                }
            }
        }
    }
}
