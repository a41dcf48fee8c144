use std::sync::Arc;

use anyhow::Result;
use transport::memory::MemoryBroker;
use transport::{Binding, Exchange, ExchangeKind, Publisher, Queue, Subscriber, Topology};

/// What the shop is called on the broker.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) exchange: String,
    pub(crate) billing: String,
    pub(crate) naive: String,
}

impl Names {
    pub(crate) fn of(shop: &str) -> Self {
        Self {
            exchange: shop.to_owned(),
            billing: format!("{shop}.billing"),
            naive: format!("{shop}.naive"),
        }
    }
}

/// A broker, seen from each side. A publisher is made anew for each relay, as a new process would.
#[derive(Clone)]
pub(crate) struct Broker {
    pub(crate) topology: Arc<dyn Topology>,
    pub(crate) subscriber: Arc<dyn Subscriber>,
    pub(crate) publisher: Arc<dyn Fn() -> Result<Arc<dyn Publisher>> + Send + Sync>,
}

impl Broker {
    /// The in-process broker.
    pub(crate) fn memory() -> Self {
        let broker = MemoryBroker::new().with_publish_timeout(crate::relays::PUBLISH_TIMEOUT);
        Self {
            topology: Arc::new(broker.clone()),
            subscriber: Arc::new(broker.clone()),
            publisher: Arc::new(move || Ok(Arc::new(broker.clone()))),
        }
    }

    /// One exchange, and a queue for each of the two consumers. Both get everything.
    pub(crate) async fn declare(&self, names: &Names) -> Result<()> {
        let exchange = Exchange { name: names.exchange.clone(), kind: ExchangeKind::Topic };
        self.topology.declare_exchange(&exchange).await?;
        for queue in [&names.billing, &names.naive] {
            self.topology.declare_queue(&Queue::new(queue)).await?;
            let binding = Binding {
                exchange: names.exchange.clone(),
                queue: queue.clone(),
                routing_key: "payment.*".to_owned(),
            };
            self.topology.bind(&binding).await?;
        }
        Ok(())
    }

    /// Removes what [`declare`](Self::declare) made.
    #[cfg(feature = "services")]
    pub(crate) async fn remove(&self, names: &Names) -> Result<()> {
        for queue in [&names.billing, &names.naive] {
            self.topology.delete_queue(queue).await?;
        }
        Ok(self.topology.delete_exchange(&names.exchange).await?)
    }

    /// Messages that wait in both queues.
    pub(crate) async fn waiting(&self, names: &Names) -> Result<u64> {
        let billing = self.topology.queue_depth(&names.billing).await?.unwrap_or(0);
        Ok(billing + self.topology.queue_depth(&names.naive).await?.unwrap_or(0))
    }
}
