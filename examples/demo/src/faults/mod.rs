//! The faults of the demonstration, put between our code and a broker that works: they happen whichever
//! broker it is, and as often as the run needs.

mod consume;
mod publish;

pub(crate) use consume::{ConsumeFaults, Death, FaultySubscriber};
pub(crate) use publish::{FaultyPublisher, PublishFaults};
