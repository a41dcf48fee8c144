//! What an operator does about parked messages.
//!
//! Each change names who orders it and why ([`Order`]) and is recorded in `inbox_audit`, one line for each
//! message, in its own transaction. It raises the message's epoch: a retry that is under way at that moment
//! changes nothing any more and ends as [`Ending::Overtaken`](crate::Ending::Overtaken). A running inbox takes a
//! decision up within [`Settings::retry_poll`](crate::Settings::retry_poll). The `relay parked` commands are
//! thin shells around these functions.

mod backend;
mod decide;
mod look;
mod order;
mod selection;

pub use decide::{Changed, discard, discard_all, retry, retry_all};
pub use look::{ParkedCount, ParkedInfo, ParkedMessage, audit, counts, list, show};
pub use order::{AdminError, AuditEntry, Order};
pub use selection::Selection;

pub(crate) use backend::AdminBackend;
pub(crate) use decide::Picked;
