use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use message::{Message, MessageId};
use transport::{Health, Lane, Publisher, Unavailable, Verdict};

/// When each message was confirmed.
#[derive(Clone, Debug, Default)]
pub struct Confirms(Arc<Mutex<HashMap<MessageId, Instant>>>);

impl Confirms {
    /// Notes a confirm that came now. Of several for one message the first counts.
    pub fn note(&self, ids: impl IntoIterator<Item = MessageId>) {
        let now = Instant::now();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            seen.entry(id).or_insert(now);
        }
    }

    /// How many messages have been confirmed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Hands all of them out and forgets them.
    #[must_use]
    pub fn take(&self) -> HashMap<MessageId, Instant> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A publisher that notes when the verdict of each message is known to the relay.
pub struct Timed {
    inner: Arc<dyn Publisher>,
    confirms: Confirms,
}

impl Timed {
    /// Notes the confirms of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Publisher>, confirms: Confirms) -> Self {
        Self { inner, confirms }
    }
}

struct TimedLane {
    inner: Box<dyn Lane>,
    confirms: Confirms,
}

#[async_trait]
impl Publisher for Timed {
    async fn open_lane(&self) -> Result<Box<dyn Lane>, Unavailable> {
        let inner = self.inner.open_lane().await?;
        Ok(Box::new(TimedLane { inner, confirms: self.confirms.clone() }))
    }

    async fn open_lane_to(&self, queue: &str) -> Result<Box<dyn Lane>, Unavailable> {
        let inner = self.inner.open_lane_to(queue).await?;
        Ok(Box::new(TimedLane { inner, confirms: self.confirms.clone() }))
    }

    async fn open_reply_lane(&self) -> Result<Box<dyn Lane>, Unavailable> {
        let inner = self.inner.open_reply_lane().await?;
        Ok(Box::new(TimedLane { inner, confirms: self.confirms.clone() }))
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn heartbeat(&self) -> Option<Duration> {
        self.inner.heartbeat()
    }

    fn publish_timeout(&self) -> Duration {
        self.inner.publish_timeout()
    }

    fn window(&self) -> usize {
        self.inner.window()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[async_trait]
impl Lane for TimedLane {
    async fn publish(&mut self, batch: &[Message]) -> Result<Vec<Verdict>, Unavailable> {
        let verdicts = self.inner.publish(batch).await?;
        let confirmed = batch.iter().zip(&verdicts);
        self.confirms.note(
            confirmed
                .filter(|(_, verdict)| **verdict == Verdict::Confirmed)
                .map(|(message, _)| message.id),
        );
        Ok(verdicts)
    }
}
