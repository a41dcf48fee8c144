//! What the tests share: the services they run against, brokers with names of their own, a proxy
//! that breaks the network.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test helper that cannot go on fails its test"
)]

pub mod bookings;
pub mod broker;
pub mod cluster;
pub mod commands;
pub mod consumers;
pub mod database;
pub mod effects;
pub mod events;
pub mod feed;
pub mod fence;
pub mod flow;
pub mod frames;
pub mod gate;
pub mod http;
pub mod inbox;
pub mod ledger;
pub mod logged;
pub mod node;
pub mod orders;
pub mod pgbouncer;
pub mod previous;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod readers;
pub mod recorded;
pub mod relays;
pub mod rights;
pub mod roles;
pub mod sales;
pub mod services;
pub mod statement;
pub mod stream;
pub mod tls;
pub mod tls_database;

use std::time::Duration;

/// Longest any scenario may take before it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a scenario under a deadline: a hang is a failure, not an endless run.
pub async fn bounded<T>(scenario: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, scenario).await.expect("the scenario hangs")
}

/// Waits until `condition` holds, looking again and again; for states that nothing announces.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE / 4, looking)
        .await
        .unwrap_or_else(|_| panic!("never came true: {what}"));
}

/// The README, whose example is compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
