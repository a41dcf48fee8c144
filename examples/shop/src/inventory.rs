//! Limited stock: set aside in the handler's transaction, never more than there is.

use anyhow::Result;
use diesel::prelude::*;
use inbox::{Builder, Consumer, SideEffects};
use message::Event;

use crate::events::{OrderPlaced, StockRefused, StockReserved};
use crate::shop::{Shop, reservations, stock};

pub(crate) async fn consumer(shop: &Shop) -> Result<Builder<SqliteConnection>> {
    let inventory = shop.consumer(Consumer("inventory"), OrderPlaced::KIND).await?;
    Ok(inventory.on(SideEffects, |tx: &mut SqliteConnection, placed: &OrderPlaced, _| {
        let OrderPlaced { order, customer, item, quantity, cents } = placed.clone();
        let enough = stock::table.find(&item).filter(stock::remaining.ge(quantity));
        let taken = diesel::update(enough)
            .set(stock::remaining.eq(stock::remaining - quantity))
            .execute(tx)?;
        if taken == 0 {
            // An answer like any other: kept, and the same for every duplicate.
            outbox::enqueue(tx, &StockRefused { order, item })?;
            return Ok("refused");
        }
        diesel::insert_into(reservations::table)
            .values((
                reservations::order_id.eq(&order),
                reservations::item.eq(item),
                reservations::quantity.eq(quantity),
            ))
            .execute(tx)?;
        outbox::enqueue(tx, &StockReserved { order, customer, cents })?;
        Ok("reserved")
    }))
}
