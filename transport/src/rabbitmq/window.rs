use std::future::poll_fn;
use std::task::Poll;

use lapin::Channel;
use lapin::options::BasicPublishOptions;
use message::Message;

use super::batch::Batch;
use super::connection::Link;
use super::failure::{ChannelClosed, Reach, lost, more_telling, reach};
use super::{confirm, encode};
use crate::{Unavailable, Verdict};

/// How a window ended.
pub(super) enum Sent {
    /// One verdict for each message, in order.
    Settled(Vec<Verdict>),
    /// The broker closed the channel; the outcome of the window is open.
    ChannelClosed(ChannelClosed),
}

/// Publishes a window in order and awaits every confirm.
pub(super) async fn send(
    link: &Link,
    channel: &Channel,
    batch: &Batch<'_>,
    window: &[usize],
) -> Result<Sent, Unavailable> {
    let messages: Vec<&Message> = window.iter().map(|index| batch.message(*index)).collect();
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let mut writes = Vec::with_capacity(messages.len());
    for message in &messages {
        // `encode::check` has passed; a name it let through and this refuses would be our defect.
        let envelope = encode::envelope(message).map_err(lost)?;
        let write = channel.basic_publish(
            envelope.exchange,
            envelope.routing_key,
            options,
            &message.payload,
            envelope.properties,
        );
        writes.push((Box::pin(write), None));
    }
    // The first poll queues the frames: polled in order, they leave in order, and the whole window is
    // in flight before the first write is awaited.
    poll_fn(|context| {
        for (write, done) in &mut writes {
            if let Poll::Ready(result) = write.as_mut().poll(context) {
                *done = Some(result);
            }
        }
        Poll::Ready(())
    })
    .await;
    let mut failure = None;
    let mut confirms = Vec::with_capacity(messages.len());
    for (write, done) in writes {
        let result = match done {
            Some(result) => result,
            None => write.await,
        };
        match result {
            Ok(confirm) => confirms.push(confirm),
            Err(error) => failure = Some(more_telling(failure, error)),
        }
    }
    let mut confirmations = Vec::with_capacity(confirms.len());
    for confirm in confirms {
        match confirm.await {
            Ok(confirmation) => confirmations.push(confirmation),
            Err(error) => failure = Some(more_telling(failure, error)),
        }
    }
    match failure.map(|error| reach(error, link.is_connected())) {
        None => confirm::settle(&messages, confirmations).map(Sent::Settled).map_err(lost),
        Some(Reach::Channel(closed)) => Ok(Sent::ChannelClosed(closed)),
        Some(Reach::Connection(error)) => Err(lost(error)),
    }
}
