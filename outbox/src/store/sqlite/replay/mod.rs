//! What a replay reads of the log, and its record.

pub(crate) mod history;
pub(crate) mod record;
