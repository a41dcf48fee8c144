use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use message::{Message, MessageId, name};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use crate::Confirms;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
};

/// Publishing straight through lapin at its best: several channels on one connection, each
/// publishing a batch and then awaiting its confirms together.
pub struct Direct {
    _connection: Connection,
    channels: Vec<Channel>,
    exchange: ShortString,
}

/// A message with its properties built beforehand.
#[derive(Clone)]
pub struct Ready {
    properties: BasicProperties,
    payload: Bytes,
}

impl Ready {
    /// The same messages as [`Fixture::fill`](crate::Fixture::fill) commits.
    #[must_use]
    pub fn messages(count: usize) -> Arc<[Self]> {
        crate::messages(count, "").iter().map(Self::of).collect()
    }

    /// A message with the properties and headers the relay would send it with.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let mut headers = FieldTable::default();
        let columns = [
            (name::OPERATION, Some(message.operation.as_str())),
            (name::ORDERING_KEY, message.ordering_key.as_deref()),
        ];
        let columns = columns.into_iter().filter_map(|(header, value)| Some((header, value?)));
        for (header, value) in message.headers.iter().chain(columns) {
            headers.insert(header.into(), AMQPValue::LongString(value.into()));
        }
        let properties = BasicProperties::default()
            .with_message_id(message.id.to_string().into())
            .with_type(message.kind.as_str().into())
            .with_content_type(message.content_type.as_str().into())
            .with_delivery_mode(2)
            .with_timestamp(1_700_000_000)
            .with_headers(headers);
        Self { properties, payload: message.payload.clone() }
    }
}

impl Direct {
    /// Opens the channels.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn open(amqp_url: &str, exchange: &str, lanes: usize) -> Result<Self> {
        let connection = Connection::connect(amqp_url, ConnectionProperties::default()).await?;
        let mut channels = Vec::new();
        for _ in 0..lanes {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            channels.push(channel);
        }
        Ok(Self { _connection: connection, channels, exchange: exchange.into() })
    }

    /// Publishes all messages, in batches of `batch` per channel, and waits for every confirm.
    ///
    /// # Errors
    /// When one is not confirmed.
    pub async fn publish(&self, messages: &Arc<[Ready]>, batch: usize) -> Result<()> {
        let lanes = self.channels.len();
        let mut tasks = Vec::new();
        for (lane, channel) in self.channels.iter().cloned().enumerate() {
            let (messages, exchange) = (messages.clone(), self.exchange.clone());
            tasks.push(tokio::spawn(async move {
                let share = messages.len().div_ceil(lanes);
                let mine = messages.chunks(share).nth(lane).unwrap_or_default();
                for batch in mine.chunks(batch) {
                    publish_batch(&channel, &exchange, batch).await?;
                }
                anyhow::Ok(())
            }));
        }
        for task in tasks {
            task.await??;
        }
        Ok(())
    }
}

impl Direct {
    /// Publishes messages one by one as they come in, round the channels, and notes each confirm as
    /// it arrives; ends when no more can come and all are confirmed.
    ///
    /// # Errors
    /// When one is not confirmed.
    pub async fn publish_each(
        &self,
        mut messages: UnboundedReceiver<(MessageId, Ready)>,
        confirms: &Confirms,
    ) -> Result<()> {
        let mut awaited = JoinSet::new();
        let mut next = 0;
        while let Some((id, ready)) = messages.recv().await {
            let channel = &self.channels[next % self.channels.len()];
            next += 1;
            let confirm = publish_one(channel, &self.exchange, &ready).await?;
            let confirms = confirms.clone();
            awaited.spawn(async move {
                let confirmation = confirm.await?;
                ensure!(matches!(confirmation, Confirmation::Ack(None)), "{confirmation:?}");
                confirms.note([id]);
                Ok(())
            });
        }
        while let Some(done) = awaited.join_next().await {
            done??;
        }
        Ok(())
    }
}

fn publish_one(
    channel: &Channel,
    exchange: &ShortString,
    ready: &Ready,
) -> impl Future<Output = lapin::Result<PublisherConfirm>> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let routing_key = ShortString::from("bench.message");
    channel.basic_publish(
        exchange.clone(),
        routing_key,
        options,
        &ready.payload,
        ready.properties.clone(),
    )
}

async fn publish_batch(channel: &Channel, exchange: &ShortString, batch: &[Ready]) -> Result<()> {
    let publishes = batch.iter().map(|ready| publish_one(channel, exchange, ready));
    let confirms = try_join_all(publishes).await?;
    for confirmation in try_join_all(confirms).await? {
        ensure!(matches!(confirmation, Confirmation::Ack(None)), "{confirmation:?}");
    }
    Ok(())
}
