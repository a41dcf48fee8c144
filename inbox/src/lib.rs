//! The consumer's side: what comes in takes effect once.
//!
//! The core is one function, for any transaction of yours:
//!
//! ```
//! use diesel::prelude::*;
//! use diesel::result::Error;
//! use inbox::{Consumer, Outcome};
//! use message::{Fingerprint, OperationKey};
//!
//! # let mut conn = SqliteConnection::establish(":memory:")?;
//! # migrations::run(&mut conn)?;
//! let operation = OperationKey::new("payment.succeeded", "pay_123")?;
//! let fingerprint = Fingerprint::of_payload(br#"{"payment_id":"pay_123","cents":5000}"#, &[]);
//!
//! let mut credit = |fingerprint: &Fingerprint| {
//!     conn.immediate_transaction(|tx| {
//!         inbox::once(tx, Consumer("billing"), &operation, fingerprint, |_tx| {
//!             // … the business change, on the same connection …
//!             Ok::<_, Error>("receipt 1".to_owned())
//!         })
//!     })
//! };
//! assert_eq!(credit(&fingerprint)?, Outcome::Applied("receipt 1".into()));
//! assert_eq!(credit(&fingerprint)?, Outcome::Duplicate("receipt 1".into()));
//!
//! // The same payment with another amount is neither applied nor passed over.
//! let other = Fingerprint::of_payload(br#"{"payment_id":"pay_123","cents":9900}"#, &[]);
//! assert!(matches!(credit(&other)?, Outcome::Conflict { .. }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Once`] is its form with options. [`Inbox`] is a consumer around it: it receives from a queue,
//! runs each message's handler in such a transaction, acknowledges after the commit, repeats what can
//! succeed and parks the rest, whole, in the table `inbox_parked`:
//!
//! ```
//! # use std::borrow::Cow;
//! use std::sync::Arc;
//!
//! use diesel::prelude::*;
//! use inbox::{Consumer, Ending, Failure, Inbox, ReplaySafe};
//! # use message::Event;
//! # use transport::{Binding, Exchange, ExchangeKind, Publisher, Queue, Topology};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct PaymentSucceeded { payment_id: String, cents: i64 }
//! # impl message::Event for PaymentSucceeded {
//! #     const KIND: &'static str = "payment.succeeded";
//! #     fn operation(&self) -> Cow<'_, str> { (&self.payment_id).into() }
//! # }
//!
//! # let file = std::env::temp_dir().join(format!("counterfoil-inbox-doc-{}.db", std::process::id()));
//! # let url = file.display().to_string();
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! let db = db::Db::<SqliteConnection>::connect(&url, db::Settings::default()).await?;
//! # db.call(|conn| migrations::run(conn)).await?;
//! # let broker = transport::memory::MemoryBroker::new();
//! # broker.declare_exchange(&Exchange { name: "events".into(), kind: ExchangeKind::Topic }).await?;
//! # broker.declare_queue(&Queue::new("billing")).await?;
//! # broker.bind(&Binding { exchange: "events".into(), queue: "billing".into(), routing_key: "payment.*".into() }).await?;
//! # let paid = message::Message::from_event(&PaymentSucceeded { payment_id: "pay_123".into(), cents: 5000 })?;
//! # broker.open_lane().await?.publish(&[paid.clone(), paid]).await?;
//! let (told, mut endings) = tokio::sync::mpsc::unbounded_channel();
//! let inbox = Inbox::new(Consumer("billing"), db, Arc::new(broker), "billing")
//!     .on(ReplaySafe, |tx: &mut SqliteConnection, paid: &PaymentSucceeded, _context| {
//!         if paid.cents <= 0 {
//!             return Err(Failure::reject("a payment of nothing"));
//!         }
//!         // Any error becomes `Failure::Retry` through `?`.
//!         diesel::sql_query("CREATE TABLE IF NOT EXISTS ledger (cents INTEGER)").execute(tx)?;
//!         diesel::sql_query("INSERT INTO ledger VALUES (?)").bind::<diesel::sql_types::BigInt, _>(paid.cents).execute(tx)?;
//!         Ok("credited")
//!     })
//!     .observe(move |ended| { let _ = told.send(ended.ending); })
//!     .build()?;
//!
//! // The queue holds the payment twice.
//! inbox.run(async {
//!     let mut both = [endings.recv().await, endings.recv().await];
//!     both.sort_by_key(|ending| ending.map(|ending| ending.as_str()));
//!     assert_eq!(both, [Some(Ending::Applied), Some(Ending::Duplicate)]);
//! }).await?;
//! # for end in ["", "-wal", "-shm"] { let _ = std::fs::remove_file(format!("{url}{end}")); }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`transition`] holds state machines for the entities that events move: what comes twice, late or
//! early gets a verdict instead of being applied blindly.
//!
//! [`effect`] is the ledger of calls to the outside world: each is on record before it is made, under a key that
//! never changes, and what became of it after.
//!
//! What it does not promise: a handler that calls the world by other means can do so twice
//! ([`Handler::prepare`] says when), and messages of one ordering key can overtake each other unless the inbox is
//! [`ordered`](Builder::ordered).

// Without a backend there is nowhere to keep anything; the crate still documents and compiles.
#![cfg_attr(not(any(feature = "postgres", feature = "sqlite")), allow(dead_code))]

pub mod admin;
mod answer;
mod apply;
mod attempt;
mod backend;
mod backoff;
mod batch;
mod builder;
mod consumer;
#[cfg(feature = "diesel-async")]
pub mod diesel_async;
mod duplicate;
pub mod effect;
mod ending;
mod endings;
mod engine;
mod error;
mod failure;
mod group;
mod handler;
#[cfg(feature = "http")]
pub mod http;
mod idle;
mod inbox;
mod incoming;
mod lanes;
mod lot;
mod once;
mod operator;
mod outcome;
mod outstanding;
mod park;
mod parking;
mod purge;
pub mod rebuild;
mod receiving;
mod replay;
mod reply;
pub mod retention;
mod route;
mod settings;
mod spike;
mod stale;
mod starts;
mod store;
pub mod telemetry;
pub mod testing;
pub mod transition;
mod unit;
mod watch;

pub use backend::InboxBackend;
pub use builder::{Builder, InboxConnection};
pub use consumer::Consumer;
pub use duplicate::DuplicateKind;
pub use ending::{Ended, Ending, Reason};
pub use endings::Endings;
pub use error::{BuildError, OnceError, RunError};
pub use failure::Failure;
pub use handler::Handler;
pub use inbox::Inbox;
pub use incoming::{Context, Incoming};
pub use once::{Once, once};
pub use operator::{operation, parked};
pub use outcome::Outcome;
pub use replay::OnReplay::{self, ReplaySafe, SideEffects};
pub use settings::Settings;
pub use store::{Operation, OperationVerdict, Parked, ParkedState};
