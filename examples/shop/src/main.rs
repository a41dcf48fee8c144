//! A shop, each of whose parts does something that is hard to do once: it takes orders over HTTP, sells limited
//! stock, raises balances, calls a payment provider, gives out invoice numbers without a gap, sends e-mail and
//! ships with a carrier that breaks off.
//!
//! ```text
//! POST /orders ─► order.placed ─► inventory ─► stock.reserved ─► payment ─► payment.authorized ─┬► invoice ─► mail
//!                                     └► stock.refused ─► refusal                               └► shipment
//! ```
//!
//! Requests are repeated, clients hang up, messages come twice, confirms and connections are lost, the broker goes away,
//! a consumer dies at work, a handler fails half way. At the end the books must agree, and every fault must have
//! happened; else it exits with an error.
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
mod refusal;
mod server;
mod shipment;
mod shop;
mod story;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use diesel::prelude::*;
use relay::Relay;

use crate::books::Books;
use crate::mailbox::Mailbox;
use crate::provider::Provider;
use crate::shop::{Shop, stock};
use crate::story::Story;

#[tokio::main]
async fn main() -> Result<()> {
    println!(
        "A shop on SQLite, with a broker in this process. Nothing has to be installed, and nothing stays."
    );
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
    let placed = clients::place_all(server).await?;
    println!("{} requests placed {} orders", placed.requests, clients::ORDERS);
    ensure!(placed.requests - placed.hung_up > clients::ORDERS, "no request was repeated");

    let story = Story {
        relay: Relay::new(shop.db.clone(), Arc::new(shop.broker.clone())).build()?,
        inventory: inventory::consumer(&shop).await?.build()?,
        consumers: [
            refusal::consumer(&shop).await?.build()?,
            payment::consumer(&shop, &payment).await?.build()?,
            invoice::consumer(&shop, &jammed).await?.build()?,
            shipment::consumer(&shop, &carrier).await?.build()?,
            mail::consumer(&shop, &mailbox).await?.build()?,
        ],
        payment: payment.clone(),
        mailbox: mailbox.clone(),
        shop: shop.clone(),
    };
    let told = story.tell().await?;

    println!("What went wrong on the way:");
    for (what, times) in [
        ("clients that hung up", placed.hung_up),
        ("messages that came again", told.duplicates as usize),
        ("batches whose confirms were lost", told.confirms_lost),
        ("outages of the broker", told.outages),
        ("charges on which a consumer died", told.died_on),
        ("charges on which the line went dead", payment.broken()),
        ("parcels on which the line went dead", carrier.broken()),
        ("mails on which the line went dead", mailbox.broken()),
        ("mails that a person had to look up", told.looked_up),
        ("invoices begun and undone", jammed.load(Ordering::Relaxed)),
    ] {
        println!("  {times} {what}");
        ensure!(times > 0, "nothing was proved: no {what}");
    }
    println!("And the books:");
    let books = Books::read(&shop).await?;
    books.agree(&payment, &carrier, &mailbox)?;
    println!("The shop keeps its books.");
    Ok(())
}
