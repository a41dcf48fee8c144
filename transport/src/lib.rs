//! The wire: what the relay publishes to and the inbox receives from.
//!
//! A broker is two traits. [`Publisher`] opens [`Lane`]s, each an independent ordered path on which
//! a batch is published and settled message by message. [`Subscriber`] opens [`Subscription`]s
//! that yield [`Delivery`]s to acknowledge. [`Topology`] declares what both need.
//!
//! Two brokers implement them: [`memory`], a real in-process broker that is always there (also for
//! your own tests), and `rabbitmq` behind the feature of that name. The conformance suite is the
//! definition of both.

mod check;
mod error;
pub mod memory;
mod publisher;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
mod subscriber;
pub mod telemetry;
mod topology;

pub use error::Unavailable;
pub use publisher::{Health, Lane, Poison, Publisher, Refusal, Verdict};
pub use subscriber::{Acknowledge, Delivery, Subscriber, Subscription};
pub use topology::{
    Binding, Exchange, ExchangeKind, Overflow, Queue, QueueKind, Topology, TopologyError,
};
