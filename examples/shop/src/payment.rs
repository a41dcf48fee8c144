//! A payment provider that performs one key once: an unknown charge is made again under its key. What it brought is
//! booked, and the customer's balance raised, in one transaction with the event.

use anyhow::Result;
use axum::http::StatusCode;
use diesel::prelude::*;
use inbox::effect::{CallFailure, ProviderKey};
use inbox::{Builder, Consumer, Context, Failure, Handler, OnReplay};
use message::Event;

use crate::events::{PaymentAuthorized, StockReserved};
use crate::http::Http;
use crate::provider::Provider;
use crate::shop::{Shop, balances, payments};

pub(crate) const CONSUMER: Consumer<'static> = Consumer("payment");

struct Charging {
    http: Http,
    provider: Provider,
}

pub(crate) async fn consumer(
    shop: &Shop,
    provider: &Provider,
) -> Result<Builder<SqliteConnection>> {
    let payment = shop.consumer(CONSUMER, StockReserved::KIND).await?;
    Ok(payment.handler(Charging { http: Http::new(), provider: provider.clone() }))
}

impl Handler<SqliteConnection> for Charging {
    const ON_REPLAY: OnReplay = OnReplay::SideEffects;
    type Event = StockReserved;
    type Prepared = String;
    type Receipt = String;

    async fn prepare(
        &self,
        reserved: &StockReserved,
        context: &Context<'_>,
    ) -> Result<String, Failure> {
        let effects = context.effects();
        let charge = effects.effect("charge").request(&reserved.cents).repeat_safe();
        Ok(charge.once(|key| perform(&self.http, &self.provider, key)).await?)
    }

    fn apply(
        &self,
        tx: &mut SqliteConnection,
        reserved: &StockReserved,
        receipt: &String,
        _: &Context<'_>,
    ) -> Result<String, Failure> {
        let StockReserved { order, customer, cents } = reserved.clone();
        diesel::insert_into(payments::table)
            .values((payments::order_id.eq(&order), payments::cents.eq(cents)))
            .execute(tx)?;
        // The increment that a naive consumer repeats with every duplicate.
        diesel::insert_into(balances::table)
            .values((balances::customer.eq(&customer), balances::cents.eq(cents)))
            .on_conflict(balances::customer)
            .do_update()
            .set(balances::cents.eq(balances::cents + cents))
            .execute(tx)?;
        outbox::enqueue(tx, &PaymentAuthorized { order, customer, cents })?;
        Ok(receipt.clone())
    }
}

/// Asks a provider to do something under a key.
pub(crate) async fn perform(
    http: &Http,
    provider: &Provider,
    key: ProviderKey,
) -> Result<String, CallFailure> {
    let uri = format!("http://{}/{key}", provider.address);
    // Whatever broke: it may have been done.
    let (status, body) =
        http.send("POST", &uri, None, Vec::new()).await.map_err(CallFailure::unknown)?;
    if status == StatusCode::OK {
        Ok(String::from_utf8_lossy(&body).into_owned())
    } else {
        Err(CallFailure::unknown(format!("answered with {status}")))
    }
}
