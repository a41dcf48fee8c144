use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;

use futures_util::FutureExt;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, PublisherConfirm};
use message::Message;

use super::batch::Batch;
use super::connection::Link;
use super::failure::{ChannelClosed, Reach, lost, more_telling, reach};
use super::patience::Patience;
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
    mut patience: Patience,
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
            None => patience.wait(write).await?,
        };
        match result {
            Ok(confirm) => confirms.push(confirm),
            Err(error) => failure = Some(more_telling(failure, error)),
        }
    }
    let mut confirmations = Vec::with_capacity(confirms.len());
    let mut early = BTreeMap::new();
    for index in 0..confirms.len() {
        match next(index, &mut confirms, &mut early, &mut patience).await? {
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

type Given = lapin::Result<Confirmation>;

/// Awaits one confirm. Those behind it that were seen to have come are `early`.
async fn next(
    index: usize,
    confirms: &mut [PublisherConfirm],
    early: &mut BTreeMap<usize, Given>,
    patience: &mut Patience,
) -> Result<Given, Unavailable> {
    loop {
        if let Some(given) = early.remove(&index) {
            return Ok(given);
        }
        match patience.wait(&mut confirms[index]).await {
            // Confirms come in any order. One that is overdue while others still come belongs to a
            // slow queue on a broker that works.
            Err(Unavailable::Timeout { .. }) if others_came(index, confirms, early) => {
                patience.progress();
            }
            given => return given,
        }
    }
}

/// Whether any from `index` on has come since the last look.
fn others_came(
    index: usize,
    confirms: &mut [PublisherConfirm],
    early: &mut BTreeMap<usize, Given>,
) -> bool {
    let known = early.len();
    for (index, confirm) in confirms.iter_mut().enumerate().skip(index) {
        // One that was seen to have come must not be polled again.
        if !early.contains_key(&index)
            && let Some(given) = confirm.now_or_never()
        {
            early.insert(index, given);
        }
    }
    early.len() > known
}
