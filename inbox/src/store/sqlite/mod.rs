//! The inbox on SQLite.

pub(crate) mod admin;
pub(crate) mod batch;
pub(crate) mod effect;
pub(crate) mod effects_seen;
pub(crate) mod generation;
pub(crate) mod operation;
pub(crate) mod order;
pub(crate) mod parked;
#[cfg(feature = "http")]
pub(crate) mod request;
pub(crate) mod retention;
pub(crate) mod retry;
pub(crate) mod transition;
