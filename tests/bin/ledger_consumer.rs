//! A consumer of bookings and sales: `ledger_consumer TOLD ADDRESS QUEUE BATCH MODE`. It writes each ending and its
//! operation to the file TOLD; MODE is `any` or `ordered` (and some bookings fail at first).
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test program that cannot go on fails its test"
)]

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use db::Db;
use diesel::PgConnection;
use inbox::{Failure, Inbox, ReplaySafe, Settings, SideEffects};
use support::bookings::{Booking, book};
use support::broker::rabbitmq;
use support::inbox::BILLING;
use support::sales::{Sale, sell};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("warn"))
        .with_writer(std::io::stderr)
        .init();
    let orders: Vec<String> = std::env::args().skip(1).collect();
    let [told, address, queue, batch, mode] = &orders[..] else { panic!("five arguments") };
    let ordered = mode == "ordered";
    let told = File::options().create_new(true).append(true).open(told).expect("a new file");
    let db = opened(address).await;
    let mut settings = Settings::default();
    settings.concurrency = if ordered { 4 } else { 2 };
    settings.batch = batch.parse().expect("a number");
    settings.ordered = ordered;
    if !ordered {
        // Nothing waits in a process that another one could be at.
        settings.prefetch = u16::try_from(settings.concurrency * settings.batch).expect("fits");
    }
    settings.backoff = Duration::from_millis(10);
    settings.backoff_max = Duration::from_millis(50);
    settings.retry_poll = Duration::from_millis(50);
    settings.reconnect_max = Duration::from_millis(500);
    let inbox = Inbox::new(BILLING, db, Arc::new(rabbitmq()), queue)
        .on(ReplaySafe, move |tx: &mut PgConnection, booking: &Booking, context| {
            book(tx, booking)?;
            if ordered && context.attempt() <= failures(booking.number) {
                return Err(Failure::retry("not yet"));
            }
            Ok(booking.number)
        })
        .on(SideEffects, |tx: &mut PgConnection, sale: &Sale, context| {
            sell(tx, sale, context.attempt())
        })
        .settings(settings)
        .observe(move |ended| {
            let operation = ended.operation.map_or("-", |operation| operation.id());
            // In one piece, so that a kill leaves it whole or not at all.
            let line = format!("{} {operation}\n", ended.ending);
            (&told).write_all(line.as_bytes()).expect("written");
        })
        .build()
        .expect("builds");
    let mut stop = signal(SignalKind::terminate()).expect("a handler");
    let stopped = async move {
        stop.recv().await;
    };
    inbox.run(stopped).await.expect("stops well");
}

/// A service is started again until its database is there; one that a test restarts may be away just then.
async fn opened(address: &str) -> Db<PgConnection> {
    loop {
        match Db::connect(address, db::Settings::default()).await {
            Ok(db) => return db,
            Err(error) if error.needs_operator() => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// How often a booking fails before it succeeds.
const fn failures(number: i64) -> u32 {
    match number % 21 {
        3 => 2,
        10 | 17 => 1,
        _ => 0,
    }
}
