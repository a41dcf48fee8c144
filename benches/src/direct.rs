use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

use crate::fixture::PAYLOAD_BYTES;

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
        let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
        (1..=count)
            .map(|n| {
                let mut headers = FieldTable::default();
                let mut header = |name: &str, value: String| {
                    headers.insert(name.into(), AMQPValue::LongString(value.into()));
                };
                header("counterfoil-fingerprint", "a".repeat(64));
                header("counterfoil-schema-version", "1".to_owned());
                header("counterfoil-operation", format!("operation-{n}"));
                header("counterfoil-ordering-key", format!("key-{}", n % 1000));
                let id = uuid::Uuid::now_v7().to_string();
                let properties = BasicProperties::default()
                    .with_message_id(id.into())
                    .with_type("bench.message".into())
                    .with_content_type("application/json".into())
                    .with_delivery_mode(2)
                    .with_timestamp(1_700_000_000)
                    .with_headers(headers);
                Self { properties, payload: payload.clone() }
            })
            .collect()
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

async fn publish_batch(channel: &Channel, exchange: &ShortString, batch: &[Ready]) -> Result<()> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let publishes = batch.iter().map(|ready| {
        let routing_key = ShortString::from("bench.message");
        channel.basic_publish(
            exchange.clone(),
            routing_key,
            options,
            &ready.payload,
            ready.properties.clone(),
        )
    });
    let confirms = try_join_all(publishes).await?;
    for confirmation in try_join_all(confirms).await? {
        ensure!(matches!(confirmation, Confirmation::Ack(None)), "{confirmation:?}");
    }
    Ok(())
}
