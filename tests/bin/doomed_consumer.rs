//! A consumer that aborts at a named point: `doomed_consumer KIND POINT ADDRESS QUEUE`, with POINT
//! `apply` (inside the transaction) or `ack` (after its commit).
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test program that cannot go on fails its test"
)]

use std::sync::Arc;

use async_trait::async_trait;
use diesel::{PgConnection, SqliteConnection};
use inbox::{Inbox, ReplaySafe};
use support::broker::rabbitmq;
use support::inbox::{BILLING, Payment, Store};
use transport::rabbitmq::RabbitMq;
use transport::{Acknowledge, Delivery, Subscriber, Subscription, Unavailable};

#[tokio::main]
async fn main() {
    let orders: Vec<String> = std::env::args().skip(1).collect();
    let [kind, point, address, queue] = &orders[..] else { panic!("four arguments") };
    if *kind == PgConnection::NAME {
        die::<PgConnection>(point, address, queue).await;
    } else {
        die::<SqliteConnection>(point, address, queue).await;
    }
}

async fn die<C: Store>(point: &str, url: &str, queue: &str) {
    let at_ack = point == "ack";
    let subscriber = DiesAtAck { rabbitmq: rabbitmq() };
    let db = db::Db::<C>::open(url, db::Settings::default()).expect("opens");
    let inbox = Inbox::new(BILLING, db, Arc::new(subscriber), queue)
        .on(ReplaySafe, move |tx: &mut C, payment: &Payment, _| {
            C::credit(tx, &payment.account, payment.cents)?;
            if !at_ack {
                abort();
            }
            Ok(())
        })
        .build()
        .expect("builds");
    inbox.run(std::future::pending()).await.expect("dies before");
}

fn abort() -> ! {
    eprintln!("dies now");
    std::process::abort()
}

/// RabbitMQ, to a consumer that does not live to acknowledge anything.
struct DiesAtAck {
    rabbitmq: RabbitMq,
}

#[async_trait]
impl Subscriber for DiesAtAck {
    async fn subscribe(
        &self,
        queue: &str,
        prefetch: u16,
    ) -> Result<Box<dyn Subscription>, Unavailable> {
        Ok(Box::new(Doomed(self.rabbitmq.subscribe(queue, prefetch).await?)))
    }

    async fn close(&self) {
        Subscriber::close(&self.rabbitmq).await;
    }
}

struct Doomed(Box<dyn Subscription>);

#[async_trait]
impl Subscription for Doomed {
    async fn receive(&mut self) -> Result<Delivery, Unavailable> {
        let delivery = self.0.receive().await?;
        Ok(Delivery { acker: Box::new(Abort), ..delivery })
    }

    async fn waiting(&mut self) -> Result<u64, Unavailable> {
        self.0.waiting().await
    }
}

#[derive(Debug)]
struct Abort;

#[async_trait]
impl Acknowledge for Abort {
    async fn ack(self: Box<Self>) -> Result<(), Unavailable> {
        abort()
    }

    async fn ack_through(self: Box<Self>) -> Result<(), Unavailable> {
        abort()
    }

    async fn requeue(self: Box<Self>) -> Result<(), Unavailable> {
        abort()
    }
}
