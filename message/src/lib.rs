//! What travels: a [`Message`], its identities and its limits. No I/O.
//!
//! Three identities, never mixed:
//!
//! * [`MessageId`] names one *event record*. Every attempt to publish it carries the same id.
//! * [`OperationKey`] names the *business operation* (`payment.succeeded` of `pay_123`). The same
//!   operation under two message ids is still one operation; the inbox applies it once.
//! * [`Fingerprint`] names the operation's *content*. The same key with another fingerprint is a
//!   conflict, not a duplicate.
//!
//! A type becomes a message by implementing [`Event`]:
//!
//! ```
//! use std::borrow::Cow;
//! use message::{Event, Message};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct PaymentSucceeded { payment_id: String, order_id: String, cents: i64 }
//!
//! impl Event for PaymentSucceeded {
//!     const KIND: &'static str = "payment.succeeded";
//!     fn operation(&self) -> Cow<'_, str> { (&self.payment_id).into() }
//!     fn ordering_key(&self) -> Option<Cow<'_, str>> { Some((&self.order_id).into()) }
//! }
//!
//! let paid = PaymentSucceeded { payment_id: "pay_123".into(), order_id: "order_456".into(), cents: 5000 };
//! let message = Message::from_event(&paid)?;
//! assert_eq!(message.operation_key().to_string(), "payment.succeeded/pay_123");
//! # Ok::<(), message::InvalidMessage>(())
//! ```

mod event;
mod fingerprint;
mod headers;
mod id;
mod limits;
mod message;
mod operation;
mod trace;

pub use event::Event;
pub use fingerprint::Fingerprint;
pub use headers::{Headers, name};
pub use id::MessageId;
pub use limits::{InvalidMessage, Limits, MAX_HEADER_BYTES, MAX_NAME_BYTES, check_name};
pub use message::Message;
pub use operation::OperationKey;
pub use trace::TraceContext;
