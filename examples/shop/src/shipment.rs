//! A carrier that does not know keys but can be asked about them: an unknown parcel is asked about, and sent again
//! only where the carrier says that it has none.

use anyhow::{Result, bail};
use axum::http::StatusCode;
use diesel::prelude::*;
use inbox::effect::{Answer, ProviderKey};
use inbox::{Builder, Consumer, Context, Failure, Handler, OnReplay};
use message::Event;

use crate::events::PaymentAuthorized;
use crate::http::Http;
use crate::payment::perform;
use crate::provider::Provider;
use crate::shop::{Shop, shipments};

const PARCEL: &str = "parcel";

struct Shipping {
    http: Http,
    carrier: Provider,
}

pub(crate) async fn consumer(shop: &Shop, carrier: &Provider) -> Result<Builder<SqliteConnection>> {
    let (http, asked) = (Http::new(), carrier.clone());
    let asking = http.clone();
    let shipment = shop.consumer(Consumer("shipment"), PaymentAuthorized::KIND).await?;
    Ok(shipment.handler(Shipping { http, carrier: carrier.clone() }).reconcile(
        PARCEL,
        move |question| {
            let (http, carrier) = (asking.clone(), asked.clone());
            async move { Ok(inquire(&http, &carrier, question.key).await?) }
        },
    ))
}

impl Handler<SqliteConnection> for Shipping {
    const ON_REPLAY: OnReplay = OnReplay::SideEffects;
    type Event = PaymentAuthorized;
    type Prepared = String;
    type Receipt = String;

    async fn prepare(
        &self,
        _: &PaymentAuthorized,
        context: &Context<'_>,
    ) -> Result<String, Failure> {
        let effects = context.effects();
        let parcel = effects.effect(PARCEL).reconciled();
        Ok(parcel.once(|key| perform(&self.http, &self.carrier, key)).await?)
    }

    fn apply(
        &self,
        tx: &mut SqliteConnection,
        paid: &PaymentAuthorized,
        tracking: &String,
        _: &Context<'_>,
    ) -> Result<String, Failure> {
        diesel::insert_into(shipments::table)
            .values((shipments::order_id.eq(&paid.order), shipments::tracking.eq(tracking)))
            .execute(tx)?;
        Ok(tracking.clone())
    }
}

async fn inquire(http: &Http, carrier: &Provider, key: ProviderKey) -> Result<Answer<String>> {
    let uri = format!("http://{}/{key}", carrier.address);
    match http.send("GET", &uri, None, Vec::new()).await? {
        (StatusCode::OK, receipt) => {
            Ok(Answer::Done(String::from_utf8_lossy(&receipt).into_owned()))
        }
        (StatusCode::NOT_FOUND, _) => Ok(Answer::NotDone),
        (status, _) => bail!("answered with {status}"),
    }
}
