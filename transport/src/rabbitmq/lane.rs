use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use lapin::Channel;
use message::Message;

use super::Inner;
use super::batch::Batch;
use super::connection::Link;
use super::encode;
use super::failure::{ChannelClosed, lost};
use super::topology::look_up_exchange;
use super::window::{Sent, send};
use crate::check::Way;
use crate::{Lane, Unavailable, Verdict, telemetry};

/// One channel in confirm mode on a connection of its own, owned by one task.
pub(super) struct RabbitLane {
    broker: Arc<Inner>,
    way: Way,
    // Empty while a batch is out and after one that failed or was abandoned half-way: confirms and
    // returns of an unfinished window must never meet the next one.
    wire: Option<Wire>,
}

/// What a lane publishes on.
struct Wire {
    link: Arc<Link>,
    channel: Channel,
    /// Exchanges seen to exist. A publish to a missing one costs the channel and the window.
    known: HashSet<String>,
    /// A batch is out.
    busy: bool,
    frames: Frames,
}

/// How large a frame was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frames {
    /// Enough for the headers of nearly every message: the client keeps two buffers of 32 frames for
    /// each connection, 8 MiB of resident memory at the broker's usual 128 KiB.
    Narrow,
    /// What the broker offers.
    Wide,
}

impl Wire {
    async fn open(broker: &Inner, frames: Frames) -> Result<Self, Unavailable> {
        let address = match frames {
            Frames::Narrow => &broker.address.narrow(),
            Frames::Wide => &broker.address,
        };
        let link = broker.publishing.open(address, &broker.name).await?;
        let channel = link.confirming_channel().await?;
        Ok(Self { link, channel, known: HashSet::new(), busy: false, frames })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A batch that timed out or was abandoned: the client would go on to send what it has queued,
        // copies of messages that by then were sent again and followed by later ones.
        if self.busy {
            self.link.cut();
        }
    }
}

impl RabbitLane {
    pub(super) async fn open(broker: Arc<Inner>, way: Way) -> Result<Self, Unavailable> {
        let wire = Wire::open(&broker, Frames::Narrow).await?;
        Ok(Self { broker, way, wire: Some(wire) })
    }

    async fn publish_all(&self, wire: &mut Wire, batch: &mut Batch<'_>) -> Result<(), Unavailable> {
        batch.refuse(|message| encode::check(message, &self.way, wire.link.frame_max()));
        if wire.frames == Frames::Narrow && batch.pardon_long_headers() {
            // Nothing is out yet: the connection may go in peace. The lane stays wide.
            wire.busy = false;
            *wire = Wire::open(&self.broker, Frames::Wide).await?;
            wire.busy = true;
            batch.refuse(|message| encode::check(message, &self.way, wire.link.frame_max()));
        }
        for window in batch.windows(self.broker.window) {
            let window = batch.unsettled(window);
            refuse_missing_exchanges(wire, batch, &window).await?;
            let window = batch.unsettled(window);
            match self.send(wire, batch, &window).await? {
                Sent::Settled(verdicts) => batch.settle(&window, verdicts),
                Sent::ChannelClosed(closed) => self.isolate(wire, closed, batch, window).await?,
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        wire: &Wire,
        batch: &Batch<'_>,
        window: &[usize],
    ) -> Result<Sent, Unavailable> {
        let patience = wire.link.patience("publish", self.broker.publish_timeout);
        send(&wire.link, &wire.channel, batch, window, patience).await
    }

    /// Sends again what was in a window whose channel the broker closed, until each message has a
    /// verdict of its own.
    ///
    /// Nothing of the window may be taken as confirmed, not even what had its ack: with confirms
    /// outstanding, a return can still sit in the client's queue. The window is halved until the
    /// offender is alone; one by one would take a confirm's latency for each innocent neighbour.
    async fn isolate(
        &self,
        wire: &mut Wire,
        closed: ChannelClosed,
        batch: &mut Batch<'_>,
        window: Vec<usize>,
    ) -> Result<(), Unavailable> {
        self.reopen(wire, &closed, window.len()).await?;
        refuse_missing_exchanges(wire, batch, &window).await?;
        let mut groups = vec![window];
        while let Some(group) = groups.pop() {
            let group = batch.unsettled(group);
            match self.send(wire, batch, &group).await? {
                Sent::Settled(verdicts) => batch.settle(&group, verdicts),
                Sent::ChannelClosed(closed) => {
                    self.reopen(wire, &closed, group.len()).await?;
                    if let [offender] = group[..] {
                        batch.blame(offender, closed.verdict());
                    } else {
                        let (front, back) = group.split_at(group.len() / 2);
                        // Popped from the end: the front half goes first, so order is kept.
                        groups.push(back.to_vec());
                        groups.push(front.to_vec());
                    }
                }
            }
        }
        Ok(())
    }

    /// A new channel after the broker closed one over a window of `count` messages.
    ///
    /// After several the connection is replaced too. The client answers the close before it has
    /// written what was still queued on the channel; the broker then ends the connection (504), at a
    /// time of its own and possibly after it has opened the next channel. After a single message,
    /// which the broker had read to the end, nothing is queued.
    async fn reopen(
        &self,
        wire: &mut Wire,
        closed: &ChannelClosed,
        count: usize,
    ) -> Result<(), Unavailable> {
        telemetry::channel_closed("publish");
        tracing::warn!(
            code = closed.code,
            text = closed.text,
            count,
            "the broker closed a channel while publishing"
        );
        if count == 1 {
            wire.channel = wire.link.confirming_channel().await?;
            wire.known.clear();
        } else {
            *wire = Wire::open(&self.broker, wire.frames).await?;
            wire.busy = true;
        }
        Ok(())
    }
}

async fn refuse_missing_exchanges(
    wire: &mut Wire,
    batch: &mut Batch<'_>,
    window: &[usize],
) -> Result<(), Unavailable> {
    for exchange in batch.exchanges_not_in(&wire.known, window) {
        if exchange.is_empty() {
            // The default exchange of a lane to one queue always exists, and asking for it is refused.
            continue;
        }
        match look_up_exchange(&wire.link, &exchange).await? {
            Ok(()) => drop(wire.known.insert(exchange)),
            Err(closed) => batch.refuse_exchange(&exchange, &closed.verdict()),
        }
    }
    Ok(())
}

#[async_trait]
impl Lane for RabbitLane {
    async fn publish(&mut self, batch: &[Message]) -> Result<Vec<Verdict>, Unavailable> {
        let Some(mut wire) = self.wire.take() else {
            return Err(lost("this lane failed before or was abandoned; open a new one"));
        };
        wire.busy = true;
        let addressed = self.way.addressed(batch);
        let mut batch = Batch::new(addressed.as_deref().unwrap_or(batch));
        if let Err(unavailable) = self.publish_all(&mut wire, &mut batch).await {
            let blocked = match &unavailable {
                Unavailable::Blocked { reason } => Some(reason.clone()),
                _ => None,
            };
            self.broker.publishing.set_blocked(blocked);
            return Err(unavailable);
        }
        self.broker.publishing.set_blocked(None);
        wire.busy = false;
        self.wire = Some(wire);
        batch.verdicts().ok_or_else(|| lost("a message of the batch was left without a verdict"))
    }
}
