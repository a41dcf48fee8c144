use std::sync::Arc;

use async_trait::async_trait;
use lapin::Channel;
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::RabbitMq;
use super::connection::Link;
use super::count::ready;
use super::failure::{ChannelClosed, Reach, lost, reach};
use crate::{
    Binding, Exchange, ExchangeKind, Overflow, Queue, QueueKind, Topology, TopologyError,
    Unavailable,
};

/// What a request said: an answer, or the channel closed over it.
type Answer<T> = Result<T, ChannelClosed>;

/// Runs one request on a channel of its own: a refusal closes the channel.
async fn ask<T>(
    link: &Link,
    step: &'static str,
    request: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
) -> Result<Answer<T>, Unavailable> {
    let channel = link.channel().await?;
    match link.ask(step, request(&channel)).await? {
        Ok(answer) => {
            // A channel left to its drop is closed too, but nobody would wait for it.
            let _ = link.ask("close a channel", channel.close(200, "OK".into())).await?;
            Ok(Ok(answer))
        }
        Err(error) => match reach(error, link.is_connected()) {
            Reach::Channel(closed) => Ok(Err(closed)),
            Reach::Connection(error) => Err(lost(error)),
        },
    }
}

/// Whether the exchange exists. Needs no permission and changes nothing.
pub(super) async fn look_up_exchange(
    link: &Link,
    exchange: &str,
) -> Result<Answer<()>, Unavailable> {
    let Ok(name) = short(exchange) else {
        return Ok(Err(ChannelClosed {
            code: Some(404),
            text: format!("{exchange:?} cannot be the name of an exchange"),
        }));
    };
    let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
    ask(link, "look up an exchange", async |channel| {
        channel
            .exchange_declare(name, lapin::ExchangeKind::Direct, options, FieldTable::default())
            .await
    })
    .await
}

impl RabbitMq {
    /// Declarations go over the consuming connection: a publishing one may be blocked.
    async fn declare<T>(
        &self,
        object: String,
        step: &'static str,
        request: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
    ) -> Result<T, TopologyError> {
        let link = self.link().await?;
        ask(&link, step, request).await?.map_err(|closed| {
            if closed.is_mismatch() {
                TopologyError::Mismatch { object, text: closed.text }
            } else {
                TopologyError::Refused { object, text: closed.text }
            }
        })
    }

    async fn link(&self) -> Result<Arc<Link>, Unavailable> {
        self.consuming().await
    }
}

#[async_trait]
impl Topology for RabbitMq {
    async fn declare_exchange(&self, exchange: &Exchange) -> Result<(), TopologyError> {
        let object = format!("exchange {:?}", exchange.name);
        let name = named(&object, &exchange.name)?;
        let kind = match exchange.kind {
            ExchangeKind::Direct => lapin::ExchangeKind::Direct,
            ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
            ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        };
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        self.declare(object, "declare an exchange", async |channel| {
            channel.exchange_declare(name, kind, options, FieldTable::default()).await
        })
        .await
    }

    async fn declare_queue(&self, queue: &Queue) -> Result<(), TopologyError> {
        let object = format!("queue {:?}", queue.name);
        let name = named(&object, &queue.name)?;
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let arguments = arguments(queue);
        self.declare(object, "declare a queue", async |channel| {
            channel.queue_declare(name, options, arguments).await
        })
        .await
        .map(drop)
    }

    async fn bind(&self, binding: &Binding) -> Result<(), TopologyError> {
        let object =
            format!("binding of queue {:?} to exchange {:?}", binding.queue, binding.exchange);
        let queue = named(&object, &binding.queue)?;
        let exchange = named(&object, &binding.exchange)?;
        let key = named(&object, &binding.routing_key)?;
        self.declare(object, "bind a queue", async |channel| {
            channel
                .queue_bind(
                    queue,
                    exchange,
                    key,
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
        })
        .await
    }

    async fn delete_queue(&self, queue: &str) -> Result<(), TopologyError> {
        let object = format!("deletion of queue {queue:?}");
        let name = named(&object, queue)?;
        self.declare(object, "delete a queue", async |channel| {
            channel.queue_delete(name, QueueDeleteOptions::default()).await
        })
        .await
        .map(drop)
    }

    async fn delete_exchange(&self, exchange: &str) -> Result<(), TopologyError> {
        let object = format!("deletion of exchange {exchange:?}");
        let name = named(&object, exchange)?;
        self.declare(object, "delete an exchange", async |channel| {
            channel.exchange_delete(name, ExchangeDeleteOptions::default()).await
        })
        .await
    }

    async fn queue_depth(&self, queue: &str) -> Result<Option<u64>, TopologyError> {
        let object = format!("queue {queue:?}");
        let name = named(&object, queue)?;
        let link = self.link().await?;
        let ready = ask(&link, "look up a queue", async |channel| ready(channel, &name).await);
        match ready.await? {
            Ok(ready) => Ok(Some(ready)),
            Err(closed) if closed.is_not_found() => Ok(None),
            Err(closed) => Err(TopologyError::Refused { object, text: closed.text }),
        }
    }

    async fn exchange_exists(&self, exchange: &str) -> Result<bool, TopologyError> {
        let link = self.link().await?;
        match look_up_exchange(&link, exchange).await? {
            Ok(()) => Ok(true),
            Err(closed) if closed.is_not_found() => Ok(false),
            Err(closed) => Err(TopologyError::Refused {
                object: format!("exchange {exchange:?}"),
                text: closed.text,
            }),
        }
    }
}

fn arguments(queue: &Queue) -> FieldTable {
    let mut arguments = FieldTable::default();
    let kind = match queue.kind {
        QueueKind::Quorum => "quorum",
        QueueKind::Classic => "classic",
    };
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    if let Some(max) = queue.max_length {
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(max.into()));
        let overflow = match queue.overflow {
            Overflow::DropHead => "drop-head",
            Overflow::RejectPublish => "reject-publish",
        };
        arguments.insert("x-overflow".into(), AMQPValue::LongString(overflow.into()));
    }
    // Left out and not false where it is not set: so that it is the same queue as before there was this.
    if queue.single_active_consumer {
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    }
    arguments
}

fn short(name: &str) -> Result<ShortString, String> {
    ShortString::try_new(name).map_err(|error| error.to_string())
}

fn named(object: &str, name: &str) -> Result<ShortString, TopologyError> {
    short(name).map_err(|text| TopologyError::Refused { object: object.to_owned(), text })
}
