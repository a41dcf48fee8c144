//! History sent again to one consumer.
//!
//! Rows stay in the log until retention takes them. A replay reads a part of them ([`Selection`]) and
//! sends it to one queue, with the same message ids and marked as a replay; it changes no row and moves
//! no cursor. What was asked for, by whom, why, and how far it has come stands in `outbox_replays`.
//!
//! * [`plan`] walks over the log in pieces and counts what fits. Where the selection begins before
//!   what is kept it says so, and [`ReplayStore::start_replay`] refuses unless told to go on without.
//! * The end is fixed at the start: the last row that fitted then. What is still being written
//!   below it is no history; the relay hands it on, and a replay may send it too.
//! * The position moves only behind what is settled. Whoever holds the replay renews a lease by
//!   the database's clock, and each write names its epoch: of two that resume one replay, one is
//!   refused, and one that was frozen meanwhile moves nothing. A crash repeats at most the batch
//!   in flight.
//! * Messages that are not due yet are no history either.
//!
//! The sending is the relay's, in `relay::replay`.

mod backends;
mod job;
mod plan;
mod record;
mod selection;
mod store;

pub use job::{Fenced, NewReplay, ReplayEnd, ReplayJob, ReplayPiece};
pub use plan::Counted;
pub(crate) use plan::PIECE;
pub use plan::{Edge, ReplayPlan, plan};
pub use record::{ReplayInfo, ReplayState};
pub use selection::Selection;
pub use store::ReplayStore;
