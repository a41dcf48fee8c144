//! The inbox on SQLite.

pub(crate) mod operation;
pub(crate) mod parked;
