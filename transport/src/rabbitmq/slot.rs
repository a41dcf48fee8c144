use std::sync::{Arc, Mutex};

use super::address::Address;
use super::connection::{Link, lock};
use crate::Unavailable;

/// The place of the one connection that subscriptions and declarations share: opened when it is asked
/// for and there is none, or a dead one.
pub(super) struct Slot {
    current: Mutex<Option<Arc<Link>>>,
    // Held across the connecting, so that many who find the connection dead open one.
    opening: tokio::sync::Mutex<()>,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self { current: Mutex::new(None), opening: tokio::sync::Mutex::new(()) }
    }

    /// The live connection, or a new one.
    pub(super) async fn get(
        &self,
        address: &Address,
        name: &str,
    ) -> Result<Arc<Link>, Unavailable> {
        if let Some(link) = self.live() {
            return Ok(link);
        }
        let _opening = self.opening.lock().await;
        if let Some(link) = self.live() {
            return Ok(link);
        }
        let link = Arc::new(Link::open(address, name, "consume").await?);
        *lock(&self.current) = Some(Arc::clone(&link));
        Ok(link)
    }

    pub(super) async fn close(&self) {
        let link = lock(&self.current).take();
        if let Some(link) = link {
            link.close().await;
        }
    }

    fn live(&self) -> Option<Arc<Link>> {
        lock(&self.current).clone().filter(|link| link.is_connected())
    }
}
