//! Sequential numbers without a gap: the counter is a row of the same transaction, so a number whose invoice is
//! rolled back was never given out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use diesel::prelude::*;
use inbox::{Builder, Consumer, Failure, SideEffects};
use message::Event;

use crate::events::{InvoiceIssued, PaymentAuthorized};
use crate::shop::{Shop, invoice_numbers, invoices};

/// The consumer. `jammed` counts the invoices that were begun and undone.
pub(crate) async fn consumer(
    shop: &Shop,
    jammed: &Arc<AtomicUsize>,
) -> Result<Builder<SqliteConnection>> {
    let jams = jammed.clone();
    let invoicing = shop.consumer(Consumer("invoice"), PaymentAuthorized::KIND).await?;
    Ok(invoicing.on(
        SideEffects,
        move |tx: &mut SqliteConnection, paid: &PaymentAuthorized, context| {
            diesel::update(invoice_numbers::table)
                .set(invoice_numbers::last.eq(invoice_numbers::last + 1))
                .execute(tx)?;
            let number: i64 = invoice_numbers::table.select(invoice_numbers::last).first(tx)?;
            let PaymentAuthorized { order, customer, cents } = paid.clone();
            diesel::insert_into(invoices::table)
                .values((
                    invoices::number.eq(number),
                    invoices::order_id.eq(&order),
                    invoices::cents.eq(cents),
                ))
                .execute(tx)?;
            if number % 4 == 0 && context.attempt() == 1 {
                jams.fetch_add(1, Ordering::Relaxed);
                return Err(Failure::retry("the printer jammed"));
            }
            outbox::enqueue(tx, &InvoiceIssued { order, customer, number, cents })?;
            Ok(number)
        },
    ))
}
