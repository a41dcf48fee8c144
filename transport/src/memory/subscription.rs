use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use message::{Message, name};
use tokio::sync::Notify;

use super::broker::{MemoryBroker, ended};
use super::queue::Taken;
use crate::{Acknowledge, Delivery, Subscription, Unavailable};

pub(super) struct MemorySubscription {
    broker: MemoryBroker,
    name: String,
    queue: u64,
    consumer: u64,
    session: u64,
    arrived: Arc<Notify>,
}

impl MemorySubscription {
    pub(super) fn new(
        broker: MemoryBroker,
        name: &str,
        queue: u64,
        consumer: u64,
        session: u64,
        arrived: Arc<Notify>,
    ) -> Self {
        Self { broker, name: name.to_owned(), queue, consumer, session, arrived }
    }

    fn deleted(&self) -> Unavailable {
        Unavailable::NoQueue {
            queue: self.name.clone(),
            reason: "the broker cancelled the consumer; the queue was deleted".to_owned(),
        }
    }

    fn take(&self) -> Result<Option<Delivery>, Unavailable> {
        let mut state = self.broker.state();
        state.check_session(self.session)?;
        match state
            .queues
            .get_mut(&self.queue)
            .map_or(Taken::NoConsumer, |queue| queue.take(self.consumer))
        {
            Taken::Nothing => Ok(None),
            Taken::NoConsumer => Err(self.deleted()),
            Taken::Message { position, message, redelivered } => {
                drop(state);
                let acker = MemoryAck {
                    broker: self.broker.clone(),
                    queue: self.queue,
                    consumer: self.consumer,
                    session: self.session,
                    position,
                };
                Ok(Some(delivery(&message, redelivered, Box::new(acker))))
            }
        }
    }
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        if let Some(queue) = self.broker.state().queues.get_mut(&self.queue) {
            queue.remove_consumer(self.consumer);
        }
    }
}

#[async_trait]
impl Subscription for MemorySubscription {
    async fn receive(&mut self) -> Result<Delivery, Unavailable> {
        tokio::task::coop::consume_budget().await;
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            // Registered before the look, or an arrival in between would never wake us.
            arrived.as_mut().enable();
            if let Some(delivery) = self.take()? {
                return Ok(delivery);
            }
            arrived.await;
        }
    }

    async fn waiting(&mut self) -> Result<u64, Unavailable> {
        let state = self.broker.state();
        state.check_session(self.session)?;
        let queue = state.queues.get(&self.queue).ok_or_else(|| self.deleted())?;
        Ok(queue.ready() as u64)
    }
}

/// What would have gone over the wire.
fn delivery(message: &Message, redelivered: bool, acker: Box<dyn Acknowledge>) -> Delivery {
    let mut headers = message.headers.clone();
    headers.insert(name::OPERATION, message.operation.as_str());
    if let Some(key) = &message.ordering_key {
        headers.insert(name::ORDERING_KEY, key.as_str());
    }
    let seconds = message.created_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Delivery {
        message_id: Some(message.id.to_string()),
        kind: Some(message.kind.clone()),
        exchange: message.exchange.clone(),
        routing_key: message.routing_key.clone(),
        headers,
        content_type: Some(message.content_type.clone()),
        payload: message.payload.clone(),
        timestamp: Some(UNIX_EPOCH + Duration::from_secs(seconds)),
        redelivered,
        acker,
    }
}

#[derive(Debug)]
struct MemoryAck {
    broker: MemoryBroker,
    queue: u64,
    consumer: u64,
    session: u64,
    position: u64,
}

#[async_trait]
impl Acknowledge for MemoryAck {
    async fn ack(self: Box<Self>) -> Result<(), Unavailable> {
        let known = {
            let mut state = self.broker.state();
            let echo_every = state.script.redeliver_every;
            let queue = state.queues.get_mut(&self.queue);
            queue.is_some_and(|queue| queue.ack(self.consumer, self.position, echo_every))
        };
        if known { Ok(()) } else { Err(ended(&self.broker, self.session)) }
    }

    async fn ack_through(self: Box<Self>) -> Result<(), Unavailable> {
        let known = {
            let mut state = self.broker.state();
            let echo_every = state.script.redeliver_every;
            let queue = state.queues.get_mut(&self.queue);
            queue.is_some_and(|queue| queue.ack_through(self.consumer, self.position, echo_every))
        };
        if known { Ok(()) } else { Err(ended(&self.broker, self.session)) }
    }

    async fn requeue(self: Box<Self>) -> Result<(), Unavailable> {
        let known = {
            let mut state = self.broker.state();
            let queue = state.queues.get_mut(&self.queue);
            queue.is_some_and(|queue| queue.requeue(self.consumer, self.position))
        };
        if known { Ok(()) } else { Err(ended(&self.broker, self.session)) }
    }
}
