//! A broker inside this process.
//!
//! It routes, bounds, redelivers and refuses the way RabbitMQ does (one conformance suite runs
//! against both) and keeps everything in memory: messages end with the process. Use it for tests and
//! demonstrations. Its faults can be provoked at will, without sleeping:
//!
//! ```
//! use transport::memory::MemoryBroker;
//! use transport::{Publisher, Queue, Topology, Exchange, ExchangeKind, Binding};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
//! # runtime.block_on(async {
//! let broker = MemoryBroker::new();
//! broker.declare_exchange(&Exchange { name: "events".into(), kind: ExchangeKind::Topic }).await?;
//! broker.declare_queue(&Queue::new("billing")).await?;
//! broker.bind(&Binding { exchange: "events".into(), queue: "billing".into(), routing_key: "payment.*".into() }).await?;
//!
//! broker.lose_confirms(1); // the next batch arrives, and its sender does not learn of it
//! let mut lane = broker.open_lane().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod broker;
mod lane;
mod queue;
mod route;
mod script;
mod state;
mod subscription;
mod topology;

pub use broker::MemoryBroker;
