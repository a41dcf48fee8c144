use anyhow::{Result, ensure};
use diesel::prelude::*;
use inbox::effect::State;
use inbox::effect::admin::{Selection, list};

use crate::clients::{ORDERS, STOCK};
use crate::mailbox::Mailbox;
use crate::provider::Provider;
use crate::shop::{
    Shop, balances, invoices, mails, orders, payments, reservations, shipments, stock,
};

/// What the shop's tables say.
#[derive(Debug)]
pub(crate) struct Books {
    orders: Vec<(String, i64)>,
    reserved: Vec<(String, String, i64)>,
    remaining: Vec<(String, i64)>,
    payments: Vec<(String, i64)>,
    balance: i64,
    invoices: Vec<(i64, String)>,
    mails: Vec<String>,
    shipments: Vec<String>,
    /// Effects that are not done.
    pub(crate) open: usize,
    parked: usize,
}

impl Books {
    pub(crate) async fn read(shop: &Shop) -> Result<Self> {
        let read = shop.db.call(|conn| {
            let mut which = Selection::default();
            which.limit = u32::MAX;
            let effects = list(conn, &which)?;
            let mut parked = 0;
            for consumer in ["inventory", "payment", "invoice", "mail", "shipment"] {
                parked += inbox::parked(conn, inbox::Consumer(consumer), 0, u32::MAX)?.len();
            }
            let balance: Vec<i64> = balances::table.select(balances::cents).load(conn)?;
            anyhow::Ok(Self {
                orders: orders::table.select((orders::id, orders::cents)).load(conn)?,
                reserved: reservations::table
                    .select((reservations::order_id, reservations::item, reservations::quantity))
                    .load(conn)?,
                remaining: stock::table.load(conn)?,
                payments: payments::table.load(conn)?,
                balance: balance.iter().sum(),
                invoices: invoices::table
                    .select((invoices::number, invoices::order_id))
                    .order(invoices::number)
                    .load(conn)?,
                mails: mails::table.select(mails::order_id).load(conn)?,
                shipments: shipments::table.select(shipments::order_id).load(conn)?,
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
            && paid > 0
            && [&self.mails, &self.shipments].iter().all(|table| table.len() >= paid)
    }

    /// Every figure follows from what was ordered and what there was.
    pub(crate) fn agree(
        &self,
        payment: &Provider,
        carrier: &Provider,
        mailbox: &Mailbox,
    ) -> Result<()> {
        ensure!(self.orders.len() == ORDERS, "{ORDERS} orders, {} rows", self.orders.len());
        for (item, had) in STOCK {
            let of_item = self.reserved.iter().filter(|(_, of, _)| of == item);
            let reserved: i64 = of_item.map(|(_, _, quantity)| quantity).sum();
            let remaining = self.remaining.iter().find(|(of, _)| of == item);
            let remaining = remaining.map_or(0, |(_, remaining)| *remaining);
            ensure!(remaining >= 0, "{item}: sold what was not there");
            ensure!(reserved + remaining == had, "{item}: {reserved} + {remaining} of {had}");
        }
        let reserved = sorted(self.reserved.iter().map(|(order, _, _)| order));
        ensure!(reserved.len() < ORDERS, "the stock was not limited");
        let of = |order: &String| {
            self.orders.iter().find(|(id, _)| id == order).map_or(0, |(_, cents)| *cents)
        };
        let due: i64 = reserved.iter().map(of).sum();
        for (what, orders) in [
            ("paid", sorted(self.payments.iter().map(|(order, _)| order))),
            ("invoiced", sorted(self.invoices.iter().map(|(_, order)| order))),
            ("told by mail", sorted(&self.mails)),
            ("shipped", sorted(&self.shipments)),
        ] {
            ensure!(orders == reserved, "{what}: {orders:?}, and reserved: {reserved:?}");
        }
        let paid: i64 = self.payments.iter().map(|(_, cents)| cents).sum();
        ensure!(
            paid == due && self.balance == due,
            "{paid} paid, {} on balances, {due} due",
            self.balance
        );
        let numbers: Vec<i64> = self.invoices.iter().map(|(number, _)| *number).collect();
        let gapless: Vec<i64> = (1..).take(numbers.len()).collect();
        ensure!(numbers == gapless, "invoice numbers {numbers:?}");
        for (who, done) in [("payment provider", payment.done()), ("carrier", carrier.done())] {
            let once = done.len() == reserved.len() && done.iter().all(|times| *times == 1);
            ensure!(once, "{who}: {done:?} for {} orders", reserved.len());
        }
        let mails = mailbox.message_ids();
        let different: std::collections::BTreeSet<_> = mails.iter().collect();
        ensure!(different.len() == mails.len(), "a mail came twice");
        ensure!(mails.len() == reserved.len(), "{} mails, {} orders", mails.len(), reserved.len());
        println!(
            "  {} orders, {} of them within the stock: as many payments, invoices, mails and parcels",
            self.orders.len(),
            reserved.len()
        );
        println!(
            "  {due} cents charged, {} on the balances; invoices 1 to {}",
            self.balance,
            numbers.len()
        );
        Ok(())
    }
}

fn sorted<'a>(orders: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut orders: Vec<String> = orders.into_iter().cloned().collect();
    orders.sort();
    // Not without repeats: one of them is what this looks for.
    orders
}
