//! An order that is told of payments, confirmations and cancellations twice, late and early.
//!
//! ```text
//! PendingPayment ──► PaymentAuthorized ──► Confirmed
//!        └─────────────────┴──► Cancelled
//! ```
//!
//! Plays the story on SQLite and the in-process broker, prints what became of each event and the
//! machine as a diagram, and exits with 0 only if every event had its verdict and the money was
//! credited once. `cargo run --package counterfoil-order-machine`; nothing is installed.

mod events;
mod machine;
mod shop;

use anyhow::{Context, Result, ensure};
use inbox::Ending;
use message::{Event, Message, MessageId};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::events::{OrderCancelled, OrderConfirmed, PaymentAuthorized};
use crate::shop::Shop;

#[tokio::main]
async fn main() -> Result<()> {
    let orders = machine::orders()?;
    let dir = tempfile::tempdir()?;
    let shop = Shop::open(&dir.path().join("shop.db").to_string_lossy()).await?;
    let (tell, endings) = unbounded_channel();
    let consumer = shop
        .consumer(&orders)
        .observe(move |ended| {
            let id = ended.message_id.and_then(|id| id.parse().ok());
            let _ = tell.send((id, ended.ending));
        })
        .build()?;

    let mut told = Ok(());
    consumer.run(async { told = Story { shop: shop.clone(), endings }.tell().await }).await?;
    told?;
    settle(&shop).await?;
    println!("\nAs Mermaid:\n\n{}\nAs Graphviz:\n\n{}", orders.mermaid(), orders.graphviz());
    println!("Every event had its verdict, and the payment was credited once.");
    Ok(())
}

struct Story {
    shop: Shop,
    endings: UnboundedReceiver<(Option<MessageId>, Ending)>,
}

impl Story {
    async fn tell(&mut self) -> Result<()> {
        println!("order_456 is paid, and everybody is told more than once:");
        let paid = authorized("auth_1", "order_456")?;
        ensure!(self.deliver(&paid).await? == Ending::Applied);
        println!("  redelivered: the inbox knows the operation, the machine does not hear of it");
        ensure!(self.deliver(&paid).await? == Ending::Duplicate);
        println!("  told by the nightly report as well, as another operation: duplicate");
        self.answered(&authorized("auth_2", "order_456")?).await?;
        self.answered(&confirmed("order_456")?).await?;
        println!("  told once more, after the confirmation: stale");
        self.answered(&authorized("auth_3", "order_456")?).await?;
        println!("  cancelled after the confirmation: a person has to look");
        self.parked(&cancelled("order_456")?).await?;

        println!("order_457 is cancelled, and paid all the same: a person has to look");
        self.answered(&cancelled("order_457")?).await?;
        self.parked(&authorized("auth_4", "order_457")?).await?;

        println!("order_458 is confirmed before its payment is told: early, parked");
        let early = confirmed("order_458")?;
        self.parked(&early).await?;
        self.answered(&authorized("auth_5", "order_458")?).await?;
        // Whichever comes first, the next try of the parked message or this repeat, moves the order.
        self.shop.publish(early).await?;
        while self.shop.state("order_458").await?.as_deref() != Some("confirmed") {
            self.endings.recv().await.context("the consumer runs")?;
        }
        Ok(())
    }

    /// Publishes a message, and waits for how it ended.
    async fn deliver(&mut self, message: &Message) -> Result<Ending> {
        self.shop.publish(message.clone()).await?;
        loop {
            let (id, ending) = self.endings.recv().await.context("the consumer runs")?;
            if id == Some(message.id) {
                return Ok(ending);
            }
        }
    }

    async fn answered(&mut self, message: &Message) -> Result<()> {
        let ending = self.deliver(message).await?;
        ensure!(!matches!(ending, Ending::Parked(_)), "{}: {ending}", message.kind);
        Ok(())
    }

    async fn parked(&mut self, message: &Message) -> Result<()> {
        let ending = self.deliver(message).await?;
        ensure!(matches!(ending, Ending::Parked(_)), "{}: {ending}", message.kind);
        Ok(())
    }
}

/// Compares what is stored with what the story says.
async fn settle(shop: &Shop) -> Result<()> {
    let histories = [
        ("order_456", &["to", "duplicate", "to", "stale"][..], "confirmed"),
        ("order_457", &["to"], "cancelled"),
        ("order_458", &["to", "to"], "confirmed"),
    ];
    println!("\nWhat was decided:");
    for (order, expected, state) in histories {
        let history = shop.history(order).await?;
        for line in &history {
            let (event, from, to) = (&line.event, &line.from, &line.to);
            println!("  {order}: {event}: {from} -> {to} ({})", line.verdict);
        }
        let verdicts: Vec<_> = history.iter().map(|line| line.verdict.as_str()).collect();
        ensure!(verdicts == expected, "{order} has the verdicts {verdicts:?}, not {expected:?}");
        ensure!(shop.state(order).await?.as_deref() == Some(state), "{order} is not {state}");
    }
    let parked = shop.parked().await?;
    println!("What was parked:");
    parked.iter().for_each(|reason| println!("  {reason}"));
    for reason in [
        "order order_456: order.cancelled makes no sense in state confirmed",
        "order order_457: payment.authorized makes no sense in state cancelled",
    ] {
        ensure!(parked.iter().any(|parked| parked == reason), "not parked: {reason}");
    }
    let credits = shop.credits().await?;
    ensure!(credits == [5_000, 5_000], "one credit for each of two orders, and not {credits:?}");
    Ok(())
}

fn authorized(authorization: &str, order: &str) -> Result<Message> {
    let (authorization, order) = (authorization.to_owned(), order.to_owned());
    message(&PaymentAuthorized { authorization, order, cents: 5_000 })
}

fn confirmed(order: &str) -> Result<Message> {
    message(&OrderConfirmed { order: order.to_owned() })
}

fn cancelled(order: &str) -> Result<Message> {
    message(&OrderCancelled { order: order.to_owned() })
}

fn message(event: &impl Event) -> Result<Message> {
    Ok(Message::from_event(event)?)
}
