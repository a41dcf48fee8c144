//! A consumer whose process one of its messages kills: `deadly_consumer KIND WHEN BATCH ADDRESS QUEUE`,
//! with WHEN `at-once` or `retried` (every message fails once and waits in the parking lot before).
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test program that cannot go on fails its test"
)]

use std::sync::Arc;
use std::time::Duration;

use diesel::{PgConnection, SqliteConnection};
use inbox::{Failure, Inbox, ReplaySafe, Settings};
use support::broker::rabbitmq;
use support::inbox::{BILLING, DEADLY, Payment, Store};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() {
    let orders: Vec<String> = std::env::args().skip(1).collect();
    let [kind, when, batch, address, queue] = &orders[..] else { panic!("five arguments") };
    let (retried, batch) = (when == "retried", batch.parse().expect("a number"));
    if *kind == PgConnection::NAME {
        consume::<PgConnection>(retried, batch, address, queue).await;
    } else {
        consume::<SqliteConnection>(retried, batch, address, queue).await;
    }
}

async fn consume<C: Store>(retried: bool, batch: usize, url: &str, queue: &str) {
    let db = db::Db::<C>::open(url, db::Settings::default()).expect("opens");
    let mut settings = Settings::default();
    settings.batch = batch;
    settings.backoff = Duration::from_millis(50);
    settings.retry_poll = Duration::from_millis(20);
    let inbox = Inbox::new(BILLING, db, Arc::new(rabbitmq()), queue)
        .on(ReplaySafe, move |tx: &mut C, payment: &Payment, context| {
            C::credit(tx, &payment.account, payment.cents)?;
            if retried && context.attempt() == 1 {
                return Err(Failure::retry("not yet"));
            }
            if payment.payment == DEADLY {
                eprintln!("dies now");
                std::process::abort();
            }
            Ok(())
        })
        .settings(settings)
        .concurrency(4)
        .build()
        .expect("builds");
    let mut stop = signal(SignalKind::terminate()).expect("a handler");
    let stopped = async move {
        stop.recv().await;
    };
    inbox.run(stopped).await.expect("stops well");
}
