use std::collections::HashSet;
use std::sync::Arc;

use message::OperationKey;

use crate::builder::InboxConnection;
use crate::ending::End;
use crate::engine::Engine;
use crate::outstanding::Ticket;
use crate::unit::{Ready, Reply, Task, Unit};

/// Deliveries that can share a transaction: each with an operation of its own.
struct Group<C> {
    units: Vec<(Unit<C>, Ready<C>)>,
    operations: HashSet<OperationKey>,
}

impl<C> Default for Group<C> {
    fn default() -> Self {
        Self { units: Vec::new(), operations: HashSet::new() }
    }
}

impl<C: InboxConnection> Engine<C> {
    /// Brings messages to their endings, in order, as many as possible together.
    pub(crate) async fn settle_all(self: &Arc<Self>, units: Vec<Unit<C>>) {
        let mut group = Group::default();
        for unit in units {
            // What has not begun goes back with its subscription.
            if self.stop.is_cancelled() {
                break;
            }
            match self.groupable(&unit) {
                Some(ready) => {
                    if !group.operations.insert(ready.job.operation.clone()) {
                        self.settle_group(std::mem::take(&mut group)).await;
                        group.operations.insert(ready.job.operation.clone());
                    }
                    group.units.push((unit, ready));
                }
                None => {
                    self.settle_group(std::mem::take(&mut group)).await;
                    self.settle(unit).await;
                }
            }
        }
        if !self.stop.is_cancelled() {
            self.settle_group(group).await;
        }
    }

    /// What needs more than the one transaction goes alone, and what may kill the process: its neighbours
    /// would be suspected with it.
    fn groupable(&self, unit: &Unit<C>) -> Option<Ready<C>> {
        let task: &Arc<Task<C>> = &unit.task;
        let answered_alone = task.lease.is_some() || self.wants_reply(task);
        if unit.is_lost() || answered_alone || task.digest.is_some() {
            return None;
        }
        self.admitted(task).ok().filter(|ready| !ready.job.work.prepares())
    }

    async fn settle_group(self: &Arc<Self>, group: Group<C>) {
        if group.units.len() < 2 {
            for (unit, _) in group.units {
                self.settle(unit).await;
            }
            return;
        }
        let readies = group.units.iter().map(|(_, ready)| ready.clone()).collect();
        let done = {
            let _shared = self.quarantine.read().await;
            self.transact_group(readies).await
        };
        let units = group.units.into_iter().map(|(unit, _)| unit);
        match done {
            Ok(verdicts) => {
                self.telemetry.batches_committed.increment(1);
                let (mut together, mut alone) = (Vec::new(), Vec::new());
                for (unit, verdict) in units.zip(verdicts) {
                    match verdict {
                        Some(verdict) => {
                            let end = self.committed(&unit.task, verdict);
                            together.push((unit, end));
                        }
                        None => alone.push(unit),
                    }
                }
                self.answer_all(together).await;
                self.settle_each(alone).await;
            }
            Err(reason) => {
                self.telemetry.batches_undone.increment(1);
                tracing::debug!(consumer = self.consumer, reason, "a batch was undone");
                self.settle_each(units).await;
            }
        }
    }

    async fn settle_each(self: &Arc<Self>, units: impl IntoIterator<Item = Unit<C>>) {
        for unit in units {
            if self.stop.is_cancelled() {
                return;
            }
            self.settle(unit).await;
        }
    }

    /// Acknowledges what one commit has brought to an end: at once where nothing else is open before it.
    async fn answer_all(&self, units: Vec<(Unit<C>, End)>) {
        let tickets: Vec<&Ticket> = units
            .iter()
            .filter_map(|(unit, _)| unit.reply.as_ref())
            .map(|reply| &reply.ticket)
            .collect();
        let at_once = tickets.len() == units.len() && Ticket::are_all_until_the_last(&tickets);
        if !at_once {
            for (Unit { task, received, reply, .. }, end) in units {
                let answered = match reply {
                    Some(reply) => self.answer(reply, end.ending).await,
                    None => true,
                };
                self.tell(&task, end, answered, received);
            }
            return;
        }
        let (mut told, mut last, mut tickets) = (Vec::new(), None, Vec::new());
        for (Unit { task, received, reply, .. }, end) in units {
            told.push((task, end, received));
            if let Some(Reply { acker, ticket, .. }) = reply {
                last = Some(acker);
                tickets.push(ticket);
            }
        }
        let answered = match last {
            Some(acker) => self.taken(&acker.ack_through().await),
            None => true,
        };
        for ticket in tickets {
            ticket.answered();
        }
        for (task, end, received) in told {
            self.tell(&task, end, answered, received);
        }
    }
}
