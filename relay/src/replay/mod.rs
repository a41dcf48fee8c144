//! Sends a part of the kept history again, to one consumer's queue.
//!
//! [`outbox::replay`] says what is recorded and how a replay is held. Here it is sent: in batches that
//! a rate spreads out, each confirmed before the position moves behind it, with the message ids of
//! the first time and headers that mark it ([`message::name::REPLAY`]). It goes to the queue itself and
//! past every exchange, so nobody else gets it.
//!
//! Nothing is skipped silently. A refused batch (no such queue, no right) ends the replay as failed,
//! and it can be resumed; an unavailable broker or database and a full queue are waited for, up to
//! [`ReplaySettings::patience`]. Only a row that no broker takes is passed, counted and named in the log:
//! it did not arrive the first time either.

mod batch;
mod error;
mod holder;
mod pace;
mod settings;

pub use error::ReplayError;
pub use holder::{ReplayOutcome, ReplayProgress, Replayer};
pub use settings::ReplaySettings;
