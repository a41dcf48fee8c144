#[cfg(feature = "reader")]
pub(crate) mod admin;
#[cfg(feature = "reader")]
pub(crate) mod cursor;
#[cfg(feature = "reader")]
pub(crate) mod facts;
#[cfg(feature = "reader")]
pub(crate) mod gauges;
#[cfg(feature = "reader")]
pub(crate) mod holds;
mod produce;
#[cfg(feature = "reader")]
pub(crate) mod purge;
#[cfg(feature = "reader")]
pub(crate) mod read;
#[cfg(feature = "reader")]
pub(crate) mod rebase;
#[cfg(feature = "reader")]
pub(crate) mod replay;
#[cfg(feature = "reader")]
mod row;
#[cfg(feature = "reader")]
pub(crate) mod wake;

pub(crate) use produce::{insert, serialize};
