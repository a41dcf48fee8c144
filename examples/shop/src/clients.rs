use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use futures_util::future::try_join_all;

use crate::http::Http;
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

/// Places all orders, each up to four times under its key: in parallel, and again by clients that claim not to
/// have heard. Returns how many requests were sent.
pub(crate) async fn place_all(server: SocketAddr) -> Result<usize> {
    let http = Http::new();
    let placed = try_join_all((0..ORDERS).map(|number| place(&http, server, number))).await?;
    let requests = placed.iter().map(|(requests, _)| requests).sum();
    let mut ids: Vec<_> = placed.into_iter().map(|(_, id)| id).collect();
    ids.sort();
    ids.dedup();
    ensure!(ids.len() == ORDERS, "{ORDERS} keys made {} orders", ids.len());
    Ok(requests)
}

async fn place(http: &Http, server: SocketAddr, number: usize) -> Result<(usize, String)> {
    let (uri, key) = (format!("http://{server}/orders"), format!("key-{number}"));
    let body = serde_json::to_vec(&order(number))?;
    let mut replies = Vec::new();
    let mut requests = 0;
    for parallel in [1 + number % 2, 1 + number % 3 / 2] {
        let sent = (0..parallel).map(|_| http.send("POST", &uri, Some(&key), body.clone()));
        requests += parallel;
        replies.extend(try_join_all(sent).await?);
    }
    let (status, first) = replies.first().context("at least one was sent")?.clone();
    ensure!(status == StatusCode::CREATED, "{status}: {first:?}");
    ensure!(replies.iter().all(|reply| *reply == (status, first.clone())), "{replies:?}");
    Ok((requests, serde_json::from_slice(&first)?))
}
