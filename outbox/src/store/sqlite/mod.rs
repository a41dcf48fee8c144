#[cfg(feature = "reader")]
pub(crate) mod cursor;
#[cfg(feature = "reader")]
pub(crate) mod holds;
mod produce;
#[cfg(feature = "reader")]
pub(crate) mod read;
#[cfg(feature = "reader")]
mod row;

pub(crate) use produce::{insert, serialize};
