mod foreign;
mod network;
mod patience;
mod refusals;

use support::broker::rabbitmq;
use transport::rabbitmq::RabbitMq;

use crate::transport::{Harness, conformance};

struct Rabbit;

impl Harness for Rabbit {
    type Broker = RabbitMq;

    fn connect(&self) -> RabbitMq {
        rabbitmq()
    }
}

conformance!(Rabbit);
