use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use message::Message;
use tokio::sync::Notify;

use crate::{Overflow, Queue};

/// A message in a queue.
pub(super) struct Entry {
    /// Its place in the queue, kept when it is given back.
    pub(super) position: u64,
    pub(super) message: Arc<Message>,
    pub(super) redelivered: bool,
    /// A copy that a fault made of an acknowledged message; not copied again.
    echo: bool,
    /// Which delivery to its consumer it was the last time.
    delivered: u64,
}

/// One consumer of a queue.
struct Consumer {
    prefetch: usize,
    deliveries: u64,
    unacked: BTreeMap<u64, Entry>,
}

/// A queue with what is ready and what is out.
pub(super) struct QueueState {
    pub(super) settings: Queue,
    pub(super) arrived: Arc<Notify>,
    ready: VecDeque<Entry>,
    /// In the order in which they came.
    consumers: BTreeMap<u64, Consumer>,
    next_position: u64,
    acked: u64,
}

/// What a consumer finds.
pub(super) enum Taken {
    Message {
        position: u64,
        message: Arc<Message>,
        redelivered: bool,
    },
    /// Nothing ready, the prefetch is used up, or it is another consumer's turn.
    Nothing,
    /// The queue does not know the consumer (any more).
    NoConsumer,
}

impl QueueState {
    pub(super) fn new(settings: Queue) -> Self {
        Self {
            settings,
            arrived: Arc::default(),
            ready: VecDeque::new(),
            consumers: BTreeMap::new(),
            next_position: 0,
            acked: 0,
        }
    }

    /// Takes a message in; `false` when the queue is full and refuses.
    pub(super) fn push(&mut self, message: Arc<Message>) -> bool {
        let max = self.settings.max_length.map_or(usize::MAX, |max| max as usize);
        if self.ready.len() >= max && self.settings.overflow == Overflow::RejectPublish {
            return false;
        }
        self.append(message, false, false);
        if self.ready.len() > max {
            self.ready.pop_front();
        }
        true
    }

    pub(super) fn add_consumer(&mut self, id: u64, prefetch: u16) {
        self.consumers.insert(
            id,
            Consumer { prefetch: prefetch.max(1).into(), deliveries: 0, unacked: BTreeMap::new() },
        );
    }

    pub(super) fn take(&mut self, consumer: u64) -> Taken {
        let first = self.consumers.keys().next() == Some(&consumer);
        let Some(consumer) = self.consumers.get_mut(&consumer) else {
            return Taken::NoConsumer;
        };
        if self.settings.single_active_consumer && !first {
            return Taken::Nothing;
        }
        if consumer.unacked.len() >= consumer.prefetch {
            return Taken::Nothing;
        }
        let Some(mut entry) = self.ready.pop_front() else {
            return Taken::Nothing;
        };
        consumer.deliveries += 1;
        entry.delivered = consumer.deliveries;
        let (position, message, redelivered) =
            (entry.position, Arc::clone(&entry.message), entry.redelivered);
        consumer.unacked.insert(position, entry);
        Taken::Message { position, message, redelivered }
    }

    /// Forgets a delivery; `false` when the consumer does not hold it. Every `echo_every`th one is
    /// put at the end of the queue as if the acknowledgement had been lost.
    pub(super) fn ack(&mut self, consumer: u64, position: u64, echo_every: Option<u64>) -> bool {
        let Some(entry) = self.release(consumer, position) else {
            return false;
        };
        if !entry.echo {
            self.acked += 1;
            if echo_every.is_some_and(|every| self.acked.is_multiple_of(every)) {
                self.append(entry.message, true, true);
            }
        }
        self.arrived.notify_waiters();
        true
    }

    /// Forgets a delivery and what its consumer got before it; `false` when the consumer does not hold it.
    pub(super) fn ack_through(
        &mut self,
        consumer: u64,
        position: u64,
        echo_every: Option<u64>,
    ) -> bool {
        let Some(holder) = self.consumers.get(&consumer) else { return false };
        let Some(last) = holder.unacked.get(&position).map(|entry| entry.delivered) else {
            return false;
        };
        let through: Vec<u64> = holder
            .unacked
            .values()
            .filter(|entry| entry.delivered <= last)
            .map(|entry| entry.position)
            .collect();
        through.into_iter().all(|position| self.ack(consumer, position, echo_every))
    }

    /// Gives a delivery back to its place; `false` when the consumer does not hold it.
    pub(super) fn requeue(&mut self, consumer: u64, position: u64) -> bool {
        let Some(entry) = self.release(consumer, position) else {
            return false;
        };
        self.give_back(entry);
        true
    }

    /// Ends a consumer; what it held goes back.
    pub(super) fn remove_consumer(&mut self, id: u64) {
        for (_, entry) in self.consumers.remove(&id).map(|gone| gone.unacked).unwrap_or_default() {
            self.give_back(entry);
        }
        // What it did not hold may be somebody else's now.
        self.arrived.notify_waiters();
    }

    pub(super) fn remove_consumers(&mut self) {
        let ids: Vec<_> = self.consumers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.remove_consumer(id));
        self.arrived.notify_waiters();
    }

    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn unacked(&self) -> usize {
        self.consumers.values().map(|consumer| consumer.unacked.len()).sum()
    }

    fn append(&mut self, message: Arc<Message>, redelivered: bool, echo: bool) {
        let position = self.next_position;
        self.next_position += 1;
        self.ready.push_back(Entry { position, message, redelivered, echo, delivered: 0 });
        self.arrived.notify_waiters();
    }

    fn release(&mut self, consumer: u64, position: u64) -> Option<Entry> {
        self.consumers.get_mut(&consumer)?.unacked.remove(&position)
    }

    fn give_back(&mut self, entry: Entry) {
        let place = self.ready.partition_point(|ready| ready.position < entry.position);
        self.ready.insert(place, Entry { redelivered: true, ..entry });
        self.arrived.notify_waiters();
    }
}
