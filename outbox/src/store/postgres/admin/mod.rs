//! What operators do. Each change writes its audit entry in its own transaction.

pub(crate) mod audit;
pub(crate) mod cursors;
pub(crate) mod holds;
