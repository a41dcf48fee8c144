use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use futures_util::future::try_join_all;

use crate::http::{Http, post_and_hang_up};
use crate::server::NewOrder;

/// How many orders are placed.
pub(crate) const ORDERS: usize = 60;
/// What is ordered, and how much of it there is.
pub(crate) const STOCK: [(&str, i64); 2] = [("lamp", 30), ("chair", 1_000)];

fn order(number: usize) -> NewOrder {
    let quantity = 1 + (number % 3) as i64;
    NewOrder {
        customer: format!("customer_{}", number % 7),
        item: STOCK[number % 2].0.to_owned(),
        quantity,
        cents: 1_250 * quantity,
    }
}

/// What it took to place the orders.
pub(crate) struct Placed {
    pub(crate) requests: usize,
    /// Requests among them whose client did not wait for the reply.
    pub(crate) hung_up: usize,
}

/// Places all orders, each up to five times under its key: by clients that hang up, in parallel, and again by clients
/// that claim not to have heard.
pub(crate) async fn place_all(server: SocketAddr) -> Result<Placed> {
    let http = Http::new();
    let placed = try_join_all((0..ORDERS).map(|number| place(&http, server, number))).await?;
    let requests = placed.iter().map(|(one, _)| one.requests).sum();
    let hung_up = placed.iter().map(|(one, _)| one.hung_up).sum();
    let mut ids: Vec<_> = placed.into_iter().map(|(_, id)| id).collect();
    ids.sort();
    ids.dedup();
    ensure!(ids.len() == ORDERS, "{ORDERS} keys made {} orders", ids.len());
    Ok(Placed { requests, hung_up })
}

async fn place(http: &Http, server: SocketAddr, number: usize) -> Result<(Placed, String)> {
    let (uri, key) = (format!("http://{server}/orders"), format!("key-{number}"));
    let body = serde_json::to_vec(&order(number))?;
    let mut replies = Vec::new();
    let hung_up = usize::from(number % 4 == 1);
    if hung_up == 1 {
        post_and_hang_up(server, "/orders", &key, &body).await?;
    }
    let mut requests = hung_up;
    for parallel in [1 + number % 2, 1 + number % 3 / 2] {
        let sent = (0..parallel).map(|_| http.send("POST", &uri, Some(&key), body.clone()));
        requests += parallel;
        replies.extend(try_join_all(sent).await?);
    }
    let (status, first) = replies.first().context("at least one was sent")?.clone();
    ensure!(status == StatusCode::CREATED, "{status}: {first:?}");
    ensure!(replies.iter().all(|reply| *reply == (status, first.clone())), "{replies:?}");
    Ok((Placed { requests, hung_up }, serde_json::from_slice(&first)?))
}
