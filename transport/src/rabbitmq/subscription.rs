use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};

use super::connection::Link;
use super::count::ready_beside_consumers;
use super::decode;
use super::failure::{ChannelClosed, Reach, lost, reach, within};
use crate::{Acknowledge, Delivery, Subscription, Unavailable};

/// One channel with one consumer.
pub(super) struct RabbitSubscription {
    name: ShortString,
    consumer: Consumer,
    channel: Channel,
    link: Arc<Link>,
    deadline: Duration,
}

impl RabbitSubscription {
    pub(super) async fn open(
        link: Arc<Link>,
        queue: &str,
        prefetch: u16,
        deadline: Duration,
    ) -> Result<Self, Unavailable> {
        let name =
            ShortString::try_new(queue).map_err(|error| no_queue(queue, &error.to_string()))?;
        let channel = link.channel().await?;
        // Per consumer, not per channel: quorum queues refuse the global kind.
        let qos = channel.basic_qos(prefetch.max(1), BasicQosOptions { global: false });
        within("basic.qos", deadline, qos).await?.map_err(lost)?;
        let consume = channel.basic_consume(
            name.clone(),
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        match within("basic.consume", deadline, consume).await? {
            Ok(consumer) => Ok(Self { name, consumer, channel, link, deadline }),
            Err(error) => Err(ended(&link, queue, error)),
        }
    }
}

impl Drop for RabbitSubscription {
    fn drop(&mut self) {
        // Closing the channel, not just cancelling the consumer, is what gives back deliveries that
        // were prefetched or are in work.
        let (channel, deadline) = (self.channel.clone(), self.deadline);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = tokio::time::timeout(deadline, channel.close(200, "OK".into())).await;
            });
        }
    }
}

#[async_trait]
impl Subscription for RabbitSubscription {
    async fn receive(&mut self) -> Result<Delivery, Unavailable> {
        match self.consumer.next().await {
            Some(Ok(wire)) => {
                let acker = wire.acker.clone();
                let acker = Box::new(RabbitAck { acker, deadline: self.deadline });
                Ok(decode::delivery(wire, acker))
            }
            Some(Err(error)) => Err(ended(&self.link, self.name.as_str(), error)),
            // The broker's cancel ends the stream without an error.
            None if self.link.is_connected() => Err(no_queue(
                self.name.as_str(),
                "the broker cancelled the consumer; the queue was deleted or moved",
            )),
            None => Err(lost("the connection was closed")),
        }
    }

    async fn waiting(&mut self) -> Result<u64, Unavailable> {
        // On the consumer's own channel: the answer comes after everything that was sent before it.
        let ready = ready_beside_consumers(&self.channel, &self.name);
        let ready = within("queue.declare", self.deadline, ready).await?;
        ready.map_err(|error| ended(&self.link, self.name.as_str(), error))
    }
}

fn ended(link: &Link, queue: &str, error: lapin::Error) -> Unavailable {
    match reach(error, link.is_connected()) {
        Reach::Channel(ChannelClosed { code: Some(403..=405), text }) => no_queue(queue, &text),
        Reach::Channel(closed) => lost(closed.text),
        Reach::Connection(error) => lost(error),
    }
}

fn no_queue(queue: &str, reason: &str) -> Unavailable {
    Unavailable::NoQueue { queue: queue.to_owned(), reason: reason.to_owned() }
}

/// Answers on the channel the delivery came from: a tag means nothing on another.
#[derive(Debug)]
struct RabbitAck {
    acker: lapin::Acker,
    deadline: Duration,
}

impl RabbitAck {
    async fn answer(
        &self,
        step: &'static str,
        request: impl Future<Output = lapin::Result<bool>>,
    ) -> Result<(), Unavailable> {
        match within(step, self.deadline, request).await?.map_err(lost)? {
            true => Ok(()),
            false => Err(lost("the delivery's channel is gone")),
        }
    }
}

#[async_trait]
impl Acknowledge for RabbitAck {
    async fn ack(self: Box<Self>) -> Result<(), Unavailable> {
        self.answer("ack", self.acker.ack(BasicAckOptions { multiple: false })).await
    }

    async fn ack_through(self: Box<Self>) -> Result<(), Unavailable> {
        self.answer("ack", self.acker.ack(BasicAckOptions { multiple: true })).await
    }

    async fn requeue(self: Box<Self>) -> Result<(), Unavailable> {
        self.answer("requeue", self.acker.nack(BasicNackOptions { multiple: false, requeue: true }))
            .await
    }
}
