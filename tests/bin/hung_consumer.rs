//! A consumer whose handler never returns, told to stop at that moment: `hung_consumer KIND ADDRESS`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test program that cannot go on fails its test"
)]

use std::sync::Arc;
use std::time::Duration;

use diesel::{PgConnection, SqliteConnection};
use inbox::{Inbox, ReplaySafe, Settings};
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Store};
use tokio::sync::Semaphore;

#[tokio::main]
async fn main() {
    let orders: Vec<String> = std::env::args().skip(1).collect();
    let [kind, address] = &orders[..] else { panic!("two arguments") };
    if *kind == PgConnection::NAME {
        hang::<PgConnection>(address).await;
    } else {
        hang::<SqliteConnection>(address).await;
    }
    println!("main ends");
    // A runtime waits at its end for its threads, and one of them never comes back.
    std::process::exit(0);
}

async fn hang<C: Store>(url: &str) {
    let mut limits = db::Settings::default();
    limits.statement_timeout = Duration::from_millis(500);
    limits.idle_in_transaction_timeout = Duration::from_millis(500);
    limits.lock_timeout = Duration::from_millis(200);
    let mut settings = Settings::default();
    settings.handler_deadline = Duration::from_secs(1);
    let (feed, hangs) = (Feed::new(), Arc::new(Semaphore::new(0)));
    feed.deliver(&Payment::new("p1", 7).message());
    let told = hangs.clone();
    let db = db::Db::<C>::open(url, limits).expect("opens");
    let inbox = Inbox::new(BILLING, db, Arc::new(feed), "q")
        .on(ReplaySafe, move |tx: &mut C, payment: &Payment, _| {
            C::credit(tx, &payment.account, payment.cents)?;
            told.add_permits(1);
            loop {
                std::thread::park();
                if payment.cents == 0 {
                    return Ok(());
                }
            }
        })
        .settings(settings)
        .build()
        .expect("builds");
    inbox.run(async { hangs.acquire().await.expect("open").forget() }).await.expect("stops well");
    println!("the inbox has stopped");
}
