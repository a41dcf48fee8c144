//! `POST /orders`: the order, the event and the reply are one commit.

use std::net::SocketAddr;

use anyhow::Result;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::post;
use diesel::prelude::*;
use inbox::http::{Caller, Idempotency, Idempotent, Policy, Reply};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::events::OrderPlaced;
use crate::shop::{Shop, orders};

/// The body of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NewOrder {
    pub(crate) customer: String,
    pub(crate) item: String,
    pub(crate) quantity: i64,
    pub(crate) cents: i64,
}

/// Starts to serve on a free port.
pub(crate) async fn start(shop: &Shop) -> Result<SocketAddr> {
    let policy = Policy::new("orders", "https://shop.example/idempotency");
    let app = Router::new()
        .route("/orders", post(place))
        .layer(middleware::from_fn(authenticated))
        .with_state(Idempotency::new(policy, shop.db.clone())?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

async fn place(order: Idempotent<NewOrder, SqliteConnection>) -> Response {
    order
        .run(|tx, new| {
            let NewOrder { customer, item, quantity, cents } = new.clone();
            let count: i64 = orders::table.count().get_result(tx)?;
            let id = format!("order_{}", count + 1);
            diesel::insert_into(orders::table)
                .values((
                    orders::id.eq(&id),
                    orders::customer.eq(&customer),
                    orders::item.eq(&item),
                    orders::quantity.eq(quantity),
                    orders::cents.eq(cents),
                ))
                .execute(tx)?;
            let placed = OrderPlaced { order: id.clone(), customer, item, quantity, cents };
            outbox::enqueue(tx, &placed)?;
            Ok(Reply::json(StatusCode::CREATED, &id)?)
        })
        .await
}

/// Stands for what authenticates.
async fn authenticated(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Caller::new("shop", "web"));
    next.run(request).await
}
