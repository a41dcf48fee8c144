//! State machines for business entities, driven by events that come twice, late and early.
//!
//! A [`Machine`] says what each event means in each state. Applied inside a handler's transaction it
//! reads the state, moves it with a guarded update and writes a row of history; what it does not do is
//! apply a change blindly:
//!
//! ```
//! use diesel::prelude::*;
//! use inbox::transition::Verdict::{Duplicate, Early, Review, Stale, To};
//! use inbox::transition::{self, Cause, Machine, labels};
//!
//! labels! {
//!     enum State {
//!         PendingPayment = "pending_payment",
//!         PaymentAuthorized = "payment_authorized",
//!         Confirmed = "confirmed",
//!         Cancelled = "cancelled",
//!     }
//!     enum Event { Authorized = "authorized", Confirm = "confirm", Cancel = "cancel" }
//! }
//! use State::{Cancelled, Confirmed, PaymentAuthorized, PendingPayment};
//!
//! let orders = Machine::new("order", PendingPayment, [
//!     (PendingPayment, Event::Authorized, To(PaymentAuthorized)),
//!     (PendingPayment, Event::Confirm, Early),
//!     (PendingPayment, Event::Cancel, To(Cancelled)),
//!     (PaymentAuthorized, Event::Authorized, Duplicate),
//!     (PaymentAuthorized, Event::Confirm, To(Confirmed)),
//!     (PaymentAuthorized, Event::Cancel, To(Cancelled)),
//!     (Confirmed, Event::Authorized, Stale),
//!     (Confirmed, Event::Confirm, Duplicate),
//!     (Cancelled, Event::Cancel, Duplicate),
//!     // Money for an order that is no more: somebody has to look, as with everything not named.
//!     (Cancelled, Event::Authorized, Review),
//! ], Review)?;
//!
//! # let mut conn = SqliteConnection::establish(":memory:")?;
//! # migrations::run(&mut conn)?;
//! let mut tell = |event| {
//!     conn.immediate_transaction(|tx| orders.apply(tx, "order_456", event, Cause::unknown()))
//! };
//! assert_eq!(tell(Event::Confirm)?.verdict, Early);
//! assert_eq!(tell(Event::Authorized)?.verdict, To(PaymentAuthorized));
//! assert_eq!(tell(Event::Authorized)?.verdict, Duplicate);
//! assert_eq!(tell(Event::Confirm)?.verdict, To(Confirmed));
//! assert_eq!(tell(Event::Authorized)?.verdict, Stale);
//!
//! let history = transition::history(&mut conn, "order", "order_456", 0, 100)?;
//! let verdicts: Vec<_> = history.iter().map(|line| line.verdict.as_str()).collect();
//! assert_eq!(verdicts, ["to", "duplicate", "to", "stale"]);
//! assert!(orders.mermaid().contains("stateDiagram-v2"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In a handler, pass the context as the cause and return the answer:
//!
//! ```
//! # use diesel::SqliteConnection;
//! # use inbox::{Context, Failure, transition::{Machine, labels}};
//! # labels! { enum State { A = "a" } enum Event { Authorized = "authorized" } }
//! # struct PaymentAuthorized { order_id: String }
//! # fn handler(orders: &Machine<State, Event>) -> impl Fn(&mut SqliteConnection, &PaymentAuthorized, &Context<'_>) -> Result<&'static str, Failure> {
//! |tx: &mut SqliteConnection, event: &PaymentAuthorized, context: &Context<'_>| {
//!     let decided = orders.apply(tx, &event.order_id, Event::Authorized, context)?;
//!     if decided.moved() {
//!         // … what goes with the move, in the same transaction …
//!     }
//!     decided.answer(context)
//! }
//! # }
//! ```
//!
//! | Verdict | What happens | Where it is seen |
//! |---|---|---|
//! | [`To`](Verdict::To) | the entity moves | `inbox_states`, history, metric |
//! | [`Duplicate`](Verdict::Duplicate) | nothing; the message is applied | history, metric |
//! | [`Stale`](Verdict::Stale) | nothing; the message is marked stale | history, metric, the operation |
//! | [`Early`](Verdict::Early) | rolled back; parked and tried again | `inbox_parked`, metric |
//! | [`Review`](Verdict::Review) | rolled back; parked for a person | `inbox_parked`, metric |
//!
//! **Two consumers never both move an entity out of one state.** The move is a compare-and-set on the
//! version and state that were read: whoever comes second waits for the first one's transaction, finds
//! the row changed, reads it again and judges anew, usually `Duplicate`. That is READ COMMITTED; above
//! it the second gets a serialization failure, and its transaction must be run again, whole. On SQLite
//! use `immediate_transaction`. The same holds for states in a table of yours, where the
//! [`Entity`]'s own statement is the guard.
//!
//! Deduplication is not the machine's work: the inbox answers a message that comes again before the
//! handler runs. `Duplicate` here is another operation that tells what the entity knows already.

mod apply;
mod backend;
mod cause;
mod decided;
mod diagram;
mod entity;
mod error;
mod history;
mod label;
mod machine;
mod verdict;

#[doc(inline)]
pub use crate::__transition_labels as labels;
pub use crate::store::{Standing, Transition};
pub(crate) use backend::TransitionBackend;
pub use cause::Cause;
pub use decided::Decided;
pub use entity::{Entity, entity};
pub use error::{MachineError, TransitionError};
pub use history::{history, state};
pub use label::{Label, UnknownLabel};
pub use machine::Machine;
pub use verdict::Verdict;
