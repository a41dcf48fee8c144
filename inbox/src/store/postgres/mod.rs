//! The inbox on PostgreSQL.

pub(crate) mod operation;
pub(crate) mod parked;
