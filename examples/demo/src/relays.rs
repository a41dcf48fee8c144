use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use db::Db;
use relay::{Relay, Settings};
use tokio::select;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::faults::{FaultyPublisher, PublishFaults};
use crate::shop::Shop;

/// Must be less than the relay's lease.
pub(crate) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs one relay after another: each is killed in mid-stream when the faults say so, without a chance
/// to settle anything, and the next one takes over.
pub(crate) async fn run<C: Shop>(
    db: Db<C>,
    broker: Broker,
    faults: Arc<PublishFaults>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        let publisher = FaultyPublisher { inner: (broker.publisher)()?, faults: faults.clone() };
        let mut settings = Settings::default();
        // Under its predecessor's name it need not wait for the lease to run out, as a standby would;
        // the epoch keeps apart what the two of them write.
        settings.owner = "demo".to_owned();
        let relay = Relay::new(db.clone(), Arc::new(publisher)).settings(settings).build()?;
        let stopped = stop.clone().cancelled_owned();
        let mut running = tokio::spawn(async move { relay.run(stopped).await });
        select! {
            ended = &mut running => return ended.context("the relay panicked")?.context("the relay gave up"),
            () = faults.dying() => {
                running.abort();
                let _ = running.await;
            }
        }
    }
}
