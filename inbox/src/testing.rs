//! For tests of services that use an inbox.
//!
//! No sleeps: [`Inbox::run_until_idle`](crate::Inbox::run_until_idle) works until nothing is left to do and
//! says how everything ended, [`MemoryBroker`](transport::memory::MemoryBroker) is a broker in the test's own
//! process that repeats, loses and refuses on demand, and [`pass_time`] makes retries due.
//!
//! ```
//! # use std::borrow::Cow;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use diesel::prelude::*;
//! use inbox::testing::{assert_applied_once, assert_nothing_parked, assert_parked, pass_time};
//! use inbox::{Consumer, Ending, Failure, Inbox, Reason, ReplaySafe};
//! # use message::{Event, Message, OperationKey};
//! # use transport::{Binding, Exchange, ExchangeKind, Publisher, Queue, Topology};
//! # use transport::memory::MemoryBroker;
//!
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct PaymentSucceeded { payment_id: String, cents: i64 }
//! # impl Event for PaymentSucceeded {
//! #     const KIND: &'static str = "payment.succeeded";
//! #     fn operation(&self) -> Cow<'_, str> { (&self.payment_id).into() }
//! # }
//! const BILLING: Consumer<'static> = Consumer("billing");
//!
//! # let file = std::env::temp_dir().join(format!("counterfoil-testing-doc-{}.db", std::process::id()));
//! # let url = file.display().to_string();
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! let db = db::Db::<SqliteConnection>::connect(&url, db::Settings::default()).await?;
//! # db.call(|conn| migrations::run(conn)).await?;
//! let broker = MemoryBroker::new();
//! # broker.declare_exchange(&Exchange { name: "events".into(), kind: ExchangeKind::Topic }).await?;
//! # broker.declare_queue(&Queue::new("billing")).await?;
//! # broker.bind(&Binding { exchange: "events".into(), queue: "billing".into(), routing_key: "payment.*".into() }).await?;
//! let inbox = Inbox::new(BILLING, db.clone(), Arc::new(broker.clone()), "billing")
//!     .on(ReplaySafe, |_tx: &mut SqliteConnection, paid: &PaymentSucceeded, context| {
//!         match context.attempt() {
//!             1 => Err(Failure::retry_after(Duration::from_secs(3600), "closed until noon")),
//!             _ => Ok(paid.cents),
//!         }
//!     })
//!     .build()?;
//!
//! broker.duplicate_next(1); // it arrives twice
//! let paid = PaymentSucceeded { payment_id: "pay_123".into(), cents: 5000 };
//! broker.open_lane().await?.publish(&[Message::from_event(&paid)?]).await?;
//! let endings = inbox.run_until_idle().await?;
//! assert_eq!(endings.of(Ending::Parked(Reason::Failed)), 2, "{endings}");
//!
//! let conn = &mut db.get::<std::convert::Infallible>()?;
//! assert_eq!(assert_parked(&mut **conn, BILLING, Reason::Failed).deliveries, 2);
//! pass_time(&mut **conn, BILLING, Duration::from_secs(3600))?;
//! let endings = inbox.run_until_idle().await?;
//! assert_eq!(endings.to_string(), "1 applied");
//!
//! let operation = OperationKey::new("payment.succeeded", "pay_123")?;
//! let stored = assert_applied_once(&mut **conn, BILLING, &operation);
//! assert_eq!(stored.result.as_deref(), Some("5000"));
//! assert_nothing_parked(&mut **conn, BILLING);
//! # for end in ["", "-wal", "-shm"] { let _ = std::fs::remove_file(format!("{url}{end}")); }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![allow(clippy::panic, reason = "an assertion that fails is to end its test")]

use std::time::Duration;

use diesel::QueryResult;
use diesel::connection::LoadConnection;
use message::OperationKey;

use crate::backend::InboxBackend;
use crate::effect::EffectBackend;
use crate::store::micros;
use crate::{Consumer, Operation, OperationVerdict, Parked, Reason, rebuild};

/// Lets time pass for what a consumer has parked and for its effects: retries become due, what came early grows
/// old, calls whose process died are found, as if so long had gone by. Waits are counted by the database's clock, which no test can move.
///
/// # Errors
/// When the database refuses.
pub fn pass_time<C>(conn: &mut C, consumer: Consumer<'_>, time: Duration) -> QueryResult<()>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    C::Backend::pass_time(conn, consumer, micros(time))?;
    // All generations share the effects of their consumer.
    C::Backend::pass_effect_time(conn, Consumer(rebuild::own(consumer.0)), micros(time))
}

/// The consumer's handler took effect for this operation, once: the row that says so is what every later
/// delivery is answered from. Returns it, for its result and its duplicates.
///
/// # Panics
/// When it did not, found the event out of date, or the database refuses.
#[track_caller]
pub fn assert_applied_once<C>(
    conn: &mut C,
    consumer: Consumer<'_>,
    operation: &OperationKey,
) -> Operation
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    let stored = known(C::Backend::operation(conn, consumer, operation));
    match stored {
        Some(stored) if stored.verdict == OperationVerdict::Applied => stored,
        Some(stored) => {
            panic!("{operation} was not applied by {}: {}", consumer.0, stored.verdict.as_str())
        }
        None => {
            let lot = all_parked(conn, consumer);
            panic!("{operation} was not applied by {}; parked: {}", consumer.0, told(&lot))
        }
    }
}

/// The consumer's handler did not take effect for this operation.
///
/// # Panics
/// When it did, or the database refuses.
#[track_caller]
pub fn assert_not_applied<C>(conn: &mut C, consumer: Consumer<'_>, operation: &OperationKey)
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    if let Some(stored) = known(C::Backend::operation(conn, consumer, operation)) {
        panic!("{operation} was applied by {}: {stored:?}", consumer.0);
    }
}

/// Exactly one message of the consumer is parked for this reason. Returns it.
///
/// # Panics
/// When none is, or several are, or the database refuses.
#[track_caller]
pub fn assert_parked<C>(conn: &mut C, consumer: Consumer<'_>, reason: Reason) -> Parked
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    let mut lot = all_parked(conn, consumer);
    let Some(at) = lot.iter().position(|parked| parked.reason == reason) else {
        panic!("nothing of {} is parked as {reason}; parked: {}", consumer.0, told(&lot))
    };
    let found = lot.swap_remove(at);
    if lot.iter().any(|parked| parked.reason == reason) {
        lot.push(found);
        panic!("several messages of {} are parked as {reason}: {}", consumer.0, told(&lot));
    }
    found
}

/// Nothing of the consumer is parked.
///
/// # Panics
/// When something is, or the database refuses.
#[track_caller]
pub fn assert_nothing_parked<C>(conn: &mut C, consumer: Consumer<'_>)
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    let lot = all_parked(conn, consumer);
    assert!(lot.is_empty(), "parked by {}: {}", consumer.0, told(&lot));
}

#[track_caller]
fn all_parked<C>(conn: &mut C, consumer: Consumer<'_>) -> Vec<Parked>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    known(C::Backend::parked(conn, consumer, 0, i64::MAX))
}

#[track_caller]
fn known<T>(read: QueryResult<T>) -> T {
    read.unwrap_or_else(|error| panic!("the inbox's tables cannot be read: {error}"))
}

fn told(lot: &[Parked]) -> String {
    if lot.is_empty() {
        return "nothing".to_owned();
    }
    let one = |parked: &Parked| {
        let message = parked.message_id.as_deref().unwrap_or("without an id");
        format!("{message} as {} ({})", parked.reason, parked.detail)
    };
    lot.iter().map(one).collect::<Vec<_>>().join("; ")
}
