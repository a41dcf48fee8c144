//! The producer's side: an event enqueued in the business transaction is published if and only if
//! that transaction commits.
//!
//! ```
//! # use std::borrow::Cow;
//! use diesel::prelude::*;
//! use message::Event;
//! use serde::Serialize;
//!
//! #[derive(Serialize)]
//! struct PaymentSucceeded { payment_id: String, order_id: String, cents: i64 }
//!
//! impl Event for PaymentSucceeded {
//!     const KIND: &'static str = "payment.succeeded";
//!     fn operation(&self) -> Cow<'_, str> { (&self.payment_id).into() }
//!     fn ordering_key(&self) -> Option<Cow<'_, str>> { Some((&self.order_id).into()) }
//! }
//!
//! # let mut conn = SqliteConnection::establish(":memory:")?;
//! # migrations::run(&mut conn)?;
//! let paid = PaymentSucceeded { payment_id: "pay_123".into(), order_id: "order_456".into(), cents: 5000 };
//! conn.transaction(|tx| {
//!     // … the business change, on the same connection …
//!     outbox::enqueue(tx, &paid)
//! })?;
//!
//! // Outside a transaction it refuses: the two would commit apart.
//! assert!(matches!(outbox::enqueue(&mut conn, &paid), Err(outbox::EnqueueError::NoTransaction)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Draft`] is the form with options: routing, headers, delay, `serialized()`. [`enqueue_all`]
//! writes many events with one statement. Other languages and drivers insert into the table itself
//! or call the SQL function `outbox_enqueue(...)`; `docs/producers.md` has the contract.
//!
//! With the feature `reader` the crate also holds the other end of the log, which the relay drives:
//! [`reader`] explains it. [`admin`] is what an operator does to cursors and held messages, and [`replay`] sends history again.

// Without a backend there is nowhere to write to; the crate still documents and compiles.
#![cfg_attr(
    not(any(feature = "postgres", feature = "sqlite")),
    allow(dead_code, unused_imports, unused_macros)
)]

#[cfg(feature = "reader")]
pub mod admin;
mod backend;
#[cfg(feature = "diesel-async")]
pub mod diesel_async;
mod draft;
mod enqueue;
mod error;
#[cfg(feature = "reader")]
pub mod reader;
#[cfg(feature = "reader")]
pub mod replay;
mod row;
mod store;

pub use backend::OutboxBackend;
pub use draft::Draft;
pub use enqueue::{enqueue, enqueue_all};
pub use error::EnqueueError;
