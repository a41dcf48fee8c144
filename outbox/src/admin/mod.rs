//! What an operator does: cursors, held messages, retention, and figures about all of them.
//!
//! Each change names who orders it and why ([`Order`]) and is recorded in `outbox_audit` in its own
//! transaction. A dry run looks and changes nothing. The `relay` program's commands are thin shells
//! around these functions.

mod backends;
mod cursors;
mod facts;
mod gauges;
mod holds;
pub(crate) mod order;
mod purge;
mod rebase;
mod store;

pub use cursors::{CursorInfo, Holder, Identity, NewCursor, Paused, Start};
pub use facts::{Facts, Right, TableUse};
pub use gauges::{Backlog, DeadTuples, Vitals, XminHolder};
pub use holds::{Changed, HeldMessage, HoldCount, HoldInfo, Selection};
pub use order::{AdminError, AuditEntry, Order};
pub use purge::Purged;
pub use rebase::Rebased;
pub use store::AdminStore;
