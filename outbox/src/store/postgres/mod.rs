#[cfg(feature = "reader")]
pub(crate) mod cursor;
#[cfg(feature = "reader")]
pub(crate) mod holds;
mod produce;
#[cfg(feature = "reader")]
pub(crate) mod read;

pub(crate) use produce::{insert, serialize};
