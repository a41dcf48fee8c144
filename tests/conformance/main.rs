//! What a backend has to do to be one. Each suite is written once and run against every backend.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod inbox;
mod migrations;
mod outbox;
mod relay;
mod transport;
mod transport_memory;
mod transport_rabbitmq;
