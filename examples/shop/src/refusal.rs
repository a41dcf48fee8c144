//! What was refused is told to somebody: an event that no queue takes would be held back by the relay.

use anyhow::Result;
use diesel::prelude::*;
use inbox::{Builder, Consumer, ReplaySafe};
use message::Event;

use crate::events::StockRefused;
use crate::shop::{Shop, refusals};

pub(crate) async fn consumer(shop: &Shop) -> Result<Builder<SqliteConnection>> {
    let refusal = shop.consumer(Consumer("refusal"), StockRefused::KIND).await?;
    Ok(refusal.on(ReplaySafe, |tx: &mut SqliteConnection, refused: &StockRefused, _| {
        diesel::insert_into(refusals::table)
            .values((refusals::order_id.eq(&refused.order), refusals::item.eq(&refused.item)))
            .execute(tx)?;
        Ok(())
    }))
}
