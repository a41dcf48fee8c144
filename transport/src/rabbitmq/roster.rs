use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::address::Address;
use super::connection::{Link, lock};
use crate::{Health, Unavailable};

/// The publishing connections, one for each lane.
///
/// Lanes do not share a connection, because a message that the broker refuses by closing its channel
/// can cost the connection as well: the client answers the close before it has written what was
/// queued on that channel, and the broker takes those frames for a protocol violation (504). Sharing
/// it, every lane would lose its window over another's bad message.
#[derive(Default)]
pub(super) struct Roster {
    links: Mutex<Vec<Weak<Link>>>,
    /// Why the last batch could not be sent, until one is settled: the blocked connection itself is
    /// given up with its lane.
    blocked: Mutex<Option<String>>,
}

impl Roster {
    pub(super) async fn open(
        &self,
        address: &Address,
        name: &str,
    ) -> Result<Arc<Link>, Unavailable> {
        let opened = Link::open(address, name, "publish").await;
        let link = Arc::new(opened.inspect_err(|_| *lock(&self.blocked) = None)?);
        let mut links = lock(&self.links);
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(&link));
        Ok(link)
    }

    pub(super) fn set_blocked(&self, reason: Option<String>) {
        *lock(&self.blocked) = reason;
    }

    pub(super) fn health(&self) -> Health {
        let live = self.live();
        let reason =
            live.iter().find_map(|link| link.blocked()).or_else(|| lock(&self.blocked).clone());
        match reason {
            Some(reason) => Health::Blocked { reason },
            None if live.is_empty() => Health::Disconnected,
            None => Health::Connected,
        }
    }

    /// Negotiated, while there is a connection.
    pub(super) fn heartbeat(&self) -> Option<Duration> {
        self.live().iter().map(|link| link.heartbeat()).max()
    }

    pub(super) async fn close(&self) {
        *lock(&self.blocked) = None;
        futures_util::future::join_all(self.live().iter().map(|link| link.close())).await;
    }

    fn live(&self) -> Vec<Arc<Link>> {
        lock(&self.links)
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|link| link.is_connected())
            .collect()
    }
}
