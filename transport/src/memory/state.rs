use std::collections::HashMap;
use std::sync::Arc;

use message::Message;

use super::queue::QueueState;
use super::route::Routes;
use super::script::Script;
use crate::{ExchangeKind, Refusal, Unavailable, Verdict};

/// Everything behind the broker's one lock, which is never held across an await.
pub(super) struct State {
    pub(super) exchanges: HashMap<String, Routes>,
    pub(super) queues: HashMap<u64, QueueState>,
    pub(super) names: HashMap<String, u64>,
    pub(super) script: Script,
    /// Raised with each disconnect: what was opened in an earlier one is dead.
    pub(super) session: u64,
    pub(super) connected: bool,
    pub(super) blocked: Option<String>,
    pub(super) paused: bool,
    pub(super) log: Option<Vec<Arc<Message>>>,
    next_id: u64,
}

impl State {
    pub(super) fn new() -> Self {
        let predeclared = [
            ("amq.direct", ExchangeKind::Direct),
            ("amq.fanout", ExchangeKind::Fanout),
            ("amq.topic", ExchangeKind::Topic),
        ];
        Self {
            exchanges: predeclared
                .into_iter()
                .map(|(name, kind)| (name.to_owned(), Routes::new(kind)))
                .collect(),
            queues: HashMap::new(),
            names: HashMap::new(),
            script: Script::default(),
            session: 0,
            connected: true,
            blocked: None,
            paused: false,
            log: None,
            next_id: 0,
        }
    }

    /// Ids of queues and consumers are never used again, so that a queue declared anew under an old
    /// name has nothing to do with the old one's consumers.
    pub(super) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn queue(&self, name: &str) -> Option<&QueueState> {
        self.queues.get(self.names.get(name)?)
    }

    pub(super) fn check_connected(&self) -> Result<(), Unavailable> {
        if self.connected { Ok(()) } else { Err(lost("the in-process broker is disconnected")) }
    }

    pub(super) fn check_session(&self, session: u64) -> Result<(), Unavailable> {
        self.check_connected()?;
        if session == self.session {
            Ok(())
        } else {
            Err(lost("the in-process broker was disconnected in between"))
        }
    }

    /// Routes one message into its queues.
    pub(super) fn publish(&mut self, message: &Arc<Message>, scratch: &mut Vec<u64>) -> Verdict {
        if message.exchange.is_empty() {
            // Only a lane to one queue lets this through.
            scratch.clear();
            scratch.extend(self.names.get(&message.routing_key));
        } else {
            let Some(routes) = self.exchanges.get(&message.exchange) else {
                let text = format!("NOT_FOUND - no exchange '{}' in memory", message.exchange);
                return Verdict::Refused(Refusal::ExchangeMissing { text });
            };
            routes.route(&message.routing_key, scratch);
        }
        if scratch.is_empty() {
            return Verdict::Refused(Refusal::Unroutable {
                exchange: message.exchange.clone(),
                routing_key: message.routing_key.clone(),
            });
        }
        let mut taken = true;
        for _ in 0..self.script.copies() {
            for queue in &*scratch {
                // As in RabbitMQ, one full queue among several refuses the message as a whole,
                // although the others keep their copy.
                taken &=
                    self.queues.get_mut(queue).is_none_or(|queue| queue.push(Arc::clone(message)));
            }
        }
        if !taken {
            return Verdict::Refused(Refusal::Nacked);
        }
        if let Some(log) = &mut self.log {
            log.push(Arc::clone(message));
        }
        Verdict::Confirmed
    }

    pub(super) fn disconnect(&mut self) {
        self.connected = false;
        self.session += 1;
        self.queues.values_mut().for_each(QueueState::remove_consumers);
    }
}

pub(super) fn lost(reason: &str) -> Unavailable {
    Unavailable::Lost { source: reason.into() }
}
