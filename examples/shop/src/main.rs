//! A shop, each of whose parts does something that is hard to do once: it takes orders over HTTP, sells limited
//! stock, raises balances, calls a payment provider, gives out invoice numbers without a gap, sends e-mail and
//! ships with a carrier that breaks off.
//!
//! ```text
//! POST /orders ─► order.placed ─► inventory ─► stock.reserved ─► payment ─► payment.authorized ─┬► invoice ─► mail
//!                                     └► stock.refused                                          └► shipment
//! ```
//!
//! Requests are repeated, messages come twice, confirms and connections are lost, a consumer dies at work, a handler
//! fails half way. At the end the books must agree, and every fault must have happened; else it exits with an error.
//! `cargo run --package counterfoil-shop`, on SQLite and the in-process broker; nothing is installed.

mod books;
mod clients;
mod events;
mod http;
mod inventory;
mod invoice;
mod mail;
mod mailbox;
mod payment;
mod provider;
mod server;
mod shipment;
mod shop;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use diesel::SqliteConnection;
use diesel::prelude::*;
use inbox::{Ending, Inbox};
use relay::Relay;
use tokio::time::{Instant, sleep};

use crate::books::Books;
use crate::mailbox::Mailbox;
use crate::provider::Provider;
use crate::shop::{Shop, stock};

/// Far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let shop = Shop::open(&dir.path().join("shop.db").to_string_lossy()).await?;
    shop.db
        .call(|conn| {
            let rows =
                clients::STOCK.map(|(item, had)| (stock::item.eq(item), stock::remaining.eq(had)));
            diesel::insert_into(stock::table).values(rows.to_vec()).execute(conn)
        })
        .await?;
    let (payment, carrier) = (Provider::start(true).await?, Provider::start(false).await?);
    let (mailbox, jammed) = (Mailbox::start().await?, Arc::new(AtomicUsize::new(0)));

    let server = server::start(&shop).await?;
    let requests = clients::place_all(server).await?;
    println!("{requests} requests placed {} orders", clients::ORDERS);
    ensure!(requests > clients::ORDERS, "no request was repeated");

    let relay = Relay::new(shop.db.clone(), Arc::new(shop.broker.clone())).build()?;
    let consumers = [
        inventory::consumer(&shop).await?.build()?,
        payment::consumer(&shop, &payment).await?.build()?,
        invoice::consumer(&shop, &jammed).await?.build()?,
        shipment::consumer(&shop, &carrier).await?.build()?,
        mail::consumer(&shop, &mailbox).await?.build()?,
    ];
    let story = Story { shop, relay, consumers, payment, carrier, mailbox };
    let told = story.tell().await?;

    println!("What went wrong on the way:");
    for (what, times) in [
        ("messages that came again", told.duplicates as usize),
        ("batches whose confirms were lost", told.confirms_lost),
        ("charges on which the line went dead", story.payment.broken()),
        ("parcels on which the line went dead", story.carrier.broken()),
        ("mails on which the line went dead", story.mailbox.broken()),
        ("mails that a person had to look up", told.looked_up),
        ("invoices begun and undone", jammed.load(Ordering::Relaxed)),
    ] {
        println!("  {times} {what}");
        ensure!(times > 0, "nothing was proved: no {what}");
    }
    println!("  1 consumer that died at work");
    println!("And the books:");
    let books = Books::read(&story.shop).await?;
    books.agree(&story.payment, &story.carrier, &story.mailbox)?;
    println!("The shop keeps its books.");
    Ok(())
}

struct Story {
    shop: Shop,
    relay: Relay<SqliteConnection>,
    consumers: [Inbox<SqliteConnection>; 5],
    payment: Provider,
    carrier: Provider,
    mailbox: Mailbox,
}

#[derive(Default)]
struct Told {
    duplicates: u64,
    confirms_lost: usize,
    looked_up: usize,
}

impl Story {
    /// Round after round, until nothing is under way.
    async fn tell(&self) -> Result<Told> {
        let mut told = Told::default();
        let begun = Instant::now();
        self.shop.broker.redeliver_every(5);
        self.shop.broker.duplicate_next(20);
        self.shop.broker.lose_confirms(1);
        self.die_at_work(&mut told).await?;
        loop {
            self.publish(&mut told).await?;
            for consumer in &self.consumers {
                told.duplicates += consumer.run_until_idle().await?.of(Ending::Duplicate);
            }
            told.looked_up += mail::look_them_up(&self.shop, &self.mailbox).await?;
            let books = Books::read(&self.shop).await?;
            if books.settled() {
                return Ok(told);
            }
            ensure!(begun.elapsed() < PATIENCE, "never settled: {books:?}");
            // What is parked comes when it is due, and the lease of a call whose process died has to end.
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn publish(&self, told: &mut Told) -> Result<()> {
        if self.relay.run_once().await.is_err() {
            // The broker has them, and the relay does not know: it publishes them again.
            told.confirms_lost += 1;
            self.relay.run_once().await?;
        }
        Ok(())
    }

    /// The consumer of payments is gone in the middle of its calls.
    async fn die_at_work(&self, told: &mut Told) -> Result<()> {
        self.publish(told).await?;
        self.consumers[0].run_until_idle().await?;
        self.publish(told).await?;
        let doomed = payment::consumer(&self.shop, &self.payment).await?.build()?;
        let running = tokio::spawn(doomed.run(std::future::pending()));
        let begun = Instant::now();
        // At the first calls: what it was retrying would wait a minute for the end of its lease.
        while self.payment.requests() < 2 {
            ensure!(begun.elapsed() < PATIENCE, "the consumer of payments does nothing");
            tokio::task::yield_now().await;
        }
        running.abort();
        let died = running.await.err().context("it ended by itself")?;
        ensure!(died.is_cancelled(), "{died}");
        Ok(())
    }
}
