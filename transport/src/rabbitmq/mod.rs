//! RabbitMQ (AMQP 0-9-1).
//!
//! Every publish is mandatory, persistent and confirmed. A [`Lane`] is one channel on a
//! connection of its own, owned by one task. Subscriptions share another connection: a broker short
//! of memory or disk stops reading those that publish, acknowledgements included.
//!
//! Connections are opened when they are needed and again after they are lost, never behind the
//! caller's back; nothing is retried here except what [`Publisher::open_lane`] and
//! [`Lane::publish`] say, and every wait has a deadline.

mod address;
mod batch;
mod confirm;
mod connection;
mod count;
mod decode;
mod encode;
mod failure;
mod lane;
mod patience;
mod plaintext;
mod refused;
mod roster;
mod settings;
mod slot;
mod socket;
mod subscription;
mod tls;
mod topology;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use address::Address;
use connection::Link;
use roster::Roster;
pub use settings::RabbitSettings;
use slot::Slot;

use crate::check::Way;
use crate::{Health, Lane, Publisher, Subscriber, Subscription, Unavailable};

/// A RabbitMQ broker. Clones share its connections.
#[derive(Clone)]
pub struct RabbitMq {
    inner: Arc<Inner>,
}

struct Inner {
    address: Address,
    name: String,
    window: usize,
    publish_timeout: Duration,
    publishing: Roster,
    consuming: Slot,
}

impl RabbitMq {
    /// A broker with these settings. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Unavailable::BadSettings`] naming the setting: an address that is none, plain text to another
    /// machine that was not allowed, a certificate or key file that cannot be read or used.
    pub fn new(settings: &RabbitSettings) -> Result<Self, Unavailable> {
        let address = Address::parse(settings)?;
        #[cfg(feature = "tls")]
        if address.is_secure() {
            // Only to find out; each connection reads them again.
            address.tls().connector().map_err(|reason| Unavailable::BadSettings { reason })?;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                address,
                name: settings.connection_name.clone(),
                window: settings.window,
                publish_timeout: settings.publish_timeout,
                publishing: Roster::default(),
                consuming: Slot::new(),
            }),
        })
    }

    async fn lane(&self, way: Way) -> Result<Box<dyn Lane>, Unavailable> {
        Ok(Box::new(lane::RabbitLane::open(Arc::clone(&self.inner), way).await?))
    }

    async fn consuming(&self) -> Result<Arc<Link>, Unavailable> {
        self.inner.consuming.get(&self.inner.address, &self.inner.name).await
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RabbitMq").field(&self.inner.address).finish()
    }
}

#[async_trait]
impl Publisher for RabbitMq {
    async fn open_lane(&self) -> Result<Box<dyn Lane>, Unavailable> {
        self.lane(Way::Exchange).await
    }

    async fn open_lane_to(&self, queue: &str) -> Result<Box<dyn Lane>, Unavailable> {
        self.lane(Way::Queue(queue.to_owned())).await
    }

    async fn open_reply_lane(&self) -> Result<Box<dyn Lane>, Unavailable> {
        self.lane(Way::Queues).await
    }

    fn health(&self) -> Health {
        self.inner.publishing.health()
    }

    fn heartbeat(&self) -> Option<Duration> {
        Some(self.inner.publishing.heartbeat().unwrap_or_else(|| self.inner.address.heartbeat()))
    }

    fn publish_timeout(&self) -> Duration {
        self.inner.publish_timeout
    }

    fn window(&self) -> usize {
        self.inner.window
    }

    async fn close(&self) {
        self.inner.publishing.close().await;
    }
}

#[async_trait]
impl Subscriber for RabbitMq {
    async fn subscribe(
        &self,
        queue: &str,
        prefetch: u16,
    ) -> Result<Box<dyn Subscription>, Unavailable> {
        let link = self.consuming().await?;
        let deadline = link.deadline();
        Ok(Box::new(subscription::RabbitSubscription::open(link, queue, prefetch, deadline).await?))
    }

    async fn close(&self) {
        self.inner.consuming.close().await;
    }
}
