//! A projection built anew beside the old one, and the switch to it.
//!
//! A consumer `billing` is at generation 1 and keeps its operations under its own name. [`begin`] gives
//! out the next generation, say 2. An inbox built with
//! [`Builder::generation(2)`](crate::Builder::generation) claims under `billing#2` ([`name`]), so the whole history applies
//! again and no key of the old generation is touched; its handlers ask
//! [`Context::generation`](crate::Context::generation) and write to tables of that generation. Both run side by side, each
//! from its own queue. When the new one has everything, [`caught_up`] says so, [`switch`] makes it the
//! active one in one guarded update, and readers, who ask [`active`], follow. [`forget`] then deletes
//! what the inbox kept of the old one, in batches.
//!
//! ```
//! # use diesel::prelude::*;
//! use inbox::Consumer;
//! use inbox::rebuild::{self, By};
//!
//! # let mut conn = SqliteConnection::establish(":memory:")?;
//! # migrations::run(&mut conn)?;
//! let (search, by) = (Consumer("search"), By { actor: "anna", reason: "a new field" });
//! let next = rebuild::begin(&mut conn, search, by)?;
//! // … a queue of its own, the history replayed into it, its inbox at work …
//! rebuild::caught_up(&mut conn, search, next, by)?;
//! assert_eq!(rebuild::active(&mut conn, search)?, 1);
//! rebuild::switch(&mut conn, search, next, by)?;
//! assert_eq!(rebuild::active(&mut conn, search)?, 2);
//! while rebuild::forget(&mut conn, search, 1, 1_000)? > 0 {}
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The recipe with queues, replay and the order of the steps is in `docs/replay.md`. A number is never
//! given out twice: what an abandoned generation has applied would pass for duplicates. Each change
//! leaves a line in `inbox_audit`.

mod backend;
mod error;
mod steps;

pub use backend::GenerationBackend;
pub use error::RebuildError;
pub use steps::{
    By, Generations, abandon, active, begin, caught_up, forget, generations, name, switch,
};
pub(crate) use steps::{names, number, own, well_formed};
