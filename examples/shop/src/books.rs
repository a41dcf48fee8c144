use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use diesel::prelude::*;
use inbox::effect::State;
use inbox::effect::admin::{Selection, list};
use message::Event;
use transport::memory::MemoryBroker;

use crate::clients::{ORDERS, STOCK};
use crate::events::{InvoiceIssued, OrderPlaced, PaymentAuthorized, StockRefused, StockReserved};
use crate::mailbox::Mailbox;
use crate::provider::Provider;
use crate::shop::{
    Shop, balances, invoices, mails, orders, payments, refusals, reservations, shipments, stock,
};

#[derive(Debug, Queryable)]
struct Order {
    id: String,
    customer: String,
    item: String,
    quantity: i64,
    cents: i64,
}

/// What the shop's tables say, and what its parts have told each other.
#[derive(Debug)]
pub(crate) struct Books {
    orders: Vec<Order>,
    reserved: Vec<(String, String, i64)>,
    refused: Vec<String>,
    remaining: BTreeMap<String, i64>,
    payments: Vec<(String, i64)>,
    balances: BTreeMap<String, i64>,
    invoices: Vec<(i64, String, i64)>,
    mails: Vec<String>,
    shipments: Vec<String>,
    /// The orders of each kind of event: once for each that was enqueued, however often it was published.
    events: BTreeMap<String, Vec<String>>,
    /// Effects that are not done.
    open: usize,
    parked: usize,
}

impl Books {
    pub(crate) async fn read(shop: &Shop) -> Result<Self> {
        let events = events(&shop.broker);
        let read = shop.db.call(move |conn| {
            let mut which = Selection::default();
            which.limit = u32::MAX;
            let effects = list(conn, &which)?;
            let mut parked = 0;
            for consumer in ["inventory", "refusal", "payment", "invoice", "mail", "shipment"] {
                parked += inbox::parked(conn, inbox::Consumer(consumer), 0, u32::MAX)?.len();
            }
            anyhow::Ok(Self {
                orders: orders::table.load(conn)?,
                reserved: reservations::table.load(conn)?,
                refused: refusals::table.select(refusals::order_id).load(conn)?,
                remaining: stock::table.load(conn)?.into_iter().collect(),
                payments: payments::table.load(conn)?,
                balances: balances::table.load(conn)?.into_iter().collect(),
                invoices: invoices::table.order(invoices::number).load(conn)?,
                mails: mails::table.select(mails::order_id).load(conn)?,
                shipments: shipments::table.select(shipments::order_id).load(conn)?,
                events,
                open: effects.iter().filter(|effect| effect.state != State::Done).count(),
                parked,
            })
        });
        read.await.map_err(|error| anyhow::anyhow!("the books cannot be read: {error}"))
    }

    /// Whether nothing is under way any more.
    pub(crate) fn settled(&self) -> bool {
        let paid = self.reserved.len();
        self.parked == 0
            && self.open == 0
            && paid + self.refused.len() >= ORDERS
            && [&self.mails, &self.shipments].iter().all(|table| table.len() >= paid)
    }

    /// Every figure follows from what was ordered and what there was.
    pub(crate) fn agree(
        &self,
        payment: &Provider,
        carrier: &Provider,
        mailbox: &Mailbox,
    ) -> Result<()> {
        let reserved = sorted(self.reserved.iter().map(|(order, _, _)| order));
        self.stock()?;
        self.orders(&reserved)?;
        let due = self.money()?;
        for (who, done) in [("payment provider", payment.done()), ("carrier", carrier.done())] {
            let once = done.len() == reserved.len() && done.iter().all(|times| *times == 1);
            ensure!(once, "{who}: {done:?} for {} orders", reserved.len());
        }
        let mails = mailbox.message_ids();
        let different: BTreeSet<_> = mails.iter().collect();
        ensure!(different.len() == mails.len(), "a mail came twice");
        ensure!(mails.len() == reserved.len(), "{} mails, {} orders", mails.len(), reserved.len());
        println!(
            "  {} orders, {} of them within the stock: as many payments, invoices, mails and parcels",
            self.orders.len(),
            reserved.len()
        );
        println!(
            "  {due} cents charged and on the balances; invoices 1 to {}",
            self.invoices.len()
        );
        Ok(())
    }

    /// As much as there was, no more, and refused only where there was not enough.
    fn stock(&self) -> Result<()> {
        for (item, had) in STOCK {
            let of_item = self.reserved.iter().filter(|(_, of, _)| of == item);
            let reserved: i64 = of_item.map(|(_, _, quantity)| quantity).sum();
            let remaining = self.remaining.get(item).copied().unwrap_or(0);
            ensure!(remaining >= 0, "{item}: sold what was not there");
            ensure!(reserved + remaining == had, "{item}: {reserved} + {remaining} of {had}");
            for refused in self.orders.iter().filter(|order| order.item == item) {
                let (id, quantity) = (&refused.id, refused.quantity);
                let sold = self.reserved.iter().any(|(order, _, _)| order == id);
                // The stock only falls: what is left at the end was there when it was refused.
                ensure!(sold || quantity > remaining, "{id}: no {quantity} of {remaining} {item}");
            }
        }
        Ok(())
    }

    /// Each order went its way once, in tables and events.
    fn orders(&self, reserved: &[String]) -> Result<()> {
        let all = sorted(self.orders.iter().map(|order| &order.id));
        ensure!(all.len() == ORDERS, "{ORDERS} keys, {} orders", all.len());
        let refused: Vec<_> =
            all.iter().filter(|order| !reserved.contains(order)).cloned().collect();
        ensure!(!refused.is_empty(), "the stock was not limited");
        for (what, orders, expected) in [
            ("told of", self.told(OrderPlaced::KIND), &*all),
            ("refused", sorted(&self.refused), &*refused),
            ("told to be refused", self.told(StockRefused::KIND), &*refused),
            ("told to be reserved", self.told(StockReserved::KIND), reserved),
            ("paid", sorted(self.payments.iter().map(|(order, _)| order)), reserved),
            ("told to be paid", self.told(PaymentAuthorized::KIND), reserved),
            ("invoiced", sorted(self.invoices.iter().map(|(_, order, _)| order)), reserved),
            ("told to be invoiced", self.told(InvoiceIssued::KIND), reserved),
            ("told by mail", sorted(&self.mails), reserved),
            ("shipped", sorted(&self.shipments), reserved),
        ] {
            ensure!(orders == expected, "{what}: {orders:?}, and not {expected:?}");
        }
        Ok(())
    }

    /// Each customer has paid what was ordered and there, to the cent, and has invoices for it; how much all have.
    fn money(&self) -> Result<i64> {
        let (mut balances, mut paid, mut invoiced) = (BTreeMap::new(), Vec::new(), Vec::new());
        for order in &self.orders {
            if self.reserved.iter().any(|(id, _, _)| *id == order.id) {
                *balances.entry(order.customer.clone()).or_insert(0) += order.cents;
                paid.push((order.id.clone(), order.cents));
            }
        }
        paid.sort();
        ensure!(self.balances == balances, "balances {:?}, due {balances:?}", self.balances);
        let mut payments = self.payments.clone();
        payments.sort();
        ensure!(payments == paid, "payments {payments:?}, due {paid:?}");
        for (expected, (number, order, cents)) in (1..).zip(&self.invoices) {
            ensure!(*number == expected, "invoice {expected} is missing: {:?}", self.invoices);
            invoiced.push((order.clone(), *cents));
        }
        invoiced.sort();
        ensure!(invoiced == paid, "invoices {invoiced:?}, due {paid:?}");
        Ok(balances.values().sum())
    }

    fn told(&self, kind: &str) -> Vec<String> {
        self.events.get(kind).cloned().unwrap_or_default()
    }
}

fn events(broker: &MemoryBroker) -> BTreeMap<String, Vec<String>> {
    let enqueued: BTreeMap<_, _> =
        broker.published().into_iter().map(|message| (message.id, message)).collect();
    let mut events: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in enqueued.into_values() {
        events.entry(message.kind).or_default().push(message.operation);
    }
    events.values_mut().for_each(|orders| orders.sort());
    events
}

/// Not without repeats: one of them is what this looks for.
fn sorted<'a>(orders: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut orders: Vec<String> = orders.into_iter().cloned().collect();
    orders.sort();
    orders
}
