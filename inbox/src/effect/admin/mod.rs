//! What an operator sees of effects and decides about them.
//!
//! A decision names who gives it and why ([`Order`]), is recorded in `inbox_audit` in its own transaction, and makes
//! the message that waits for it due at once. The `relay effects` commands are thin shells around these functions.

mod decide;
mod look;

pub use crate::admin::{AdminError, Order};
pub use decide::{Decision, decide};
pub use look::{Count, Effect, Selection, counts, list, show};
