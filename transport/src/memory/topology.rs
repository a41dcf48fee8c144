use async_trait::async_trait;

use super::broker::MemoryBroker;
use super::queue::QueueState;
use super::route::Routes;
use crate::{Binding, Exchange, Queue, Topology, TopologyError};

#[async_trait]
impl Topology for MemoryBroker {
    async fn declare_exchange(&self, exchange: &Exchange) -> Result<(), TopologyError> {
        let object = || format!("exchange {:?}", exchange.name);
        check_name(object, &exchange.name)?;
        let mut state = self.state();
        state.check_connected()?;
        match state.exchanges.get(&exchange.name) {
            Some(existing) if existing.kind != exchange.kind => Err(TopologyError::Mismatch {
                object: object(),
                text: format!(
                    "received '{:?}' but current is '{:?}'",
                    exchange.kind, existing.kind
                ),
            }),
            Some(_) => Ok(()),
            None => {
                state.exchanges.insert(exchange.name.clone(), Routes::new(exchange.kind));
                Ok(())
            }
        }
    }

    async fn declare_queue(&self, queue: &Queue) -> Result<(), TopologyError> {
        let object = || format!("queue {:?}", queue.name);
        check_name(object, &queue.name)?;
        let mut state = self.state();
        state.check_connected()?;
        match state.queue(&queue.name) {
            Some(existing) if existing.settings != *queue => Err(TopologyError::Mismatch {
                object: object(),
                text: format!("received '{queue:?}' but current is '{:?}'", existing.settings),
            }),
            Some(_) => Ok(()),
            None => {
                let id = state.next_id();
                state.names.insert(queue.name.clone(), id);
                state.queues.insert(id, QueueState::new(queue.clone()));
                Ok(())
            }
        }
    }

    async fn bind(&self, binding: &Binding) -> Result<(), TopologyError> {
        let missing = |what: &str, name: &str| TopologyError::Refused {
            object: format!(
                "binding of queue {:?} to exchange {:?}",
                binding.queue, binding.exchange
            ),
            text: format!("NOT_FOUND - no {what} '{name}' in memory"),
        };
        let mut state = self.state();
        state.check_connected()?;
        let queue = state
            .names
            .get(&binding.queue)
            .copied()
            .ok_or_else(|| missing("queue", &binding.queue))?;
        let routes = state
            .exchanges
            .get_mut(&binding.exchange)
            .ok_or_else(|| missing("exchange", &binding.exchange))?;
        routes.bind(queue, &binding.routing_key);
        Ok(())
    }

    async fn delete_queue(&self, queue: &str) -> Result<(), TopologyError> {
        let mut state = self.state();
        state.check_connected()?;
        if let Some(id) = state.names.remove(queue) {
            state.exchanges.values_mut().for_each(|routes| routes.unbind(id));
            if let Some(gone) = state.queues.remove(&id) {
                gone.arrived.notify_waiters();
            }
        }
        Ok(())
    }

    async fn delete_exchange(&self, exchange: &str) -> Result<(), TopologyError> {
        let mut state = self.state();
        state.check_connected()?;
        state.exchanges.remove(exchange);
        Ok(())
    }

    async fn queue_depth(&self, queue: &str) -> Result<Option<u64>, TopologyError> {
        let state = self.state();
        state.check_connected()?;
        Ok(state.queue(queue).map(|queue| queue.ready() as u64))
    }

    async fn exchange_exists(&self, exchange: &str) -> Result<bool, TopologyError> {
        let state = self.state();
        state.check_connected()?;
        Ok(state.exchanges.contains_key(exchange))
    }
}

fn check_name(object: impl Fn() -> String, name: &str) -> Result<(), TopologyError> {
    message::check_name("name", name)
        .map_err(|error| TopologyError::Refused { object: object(), text: error.to_string() })
}
