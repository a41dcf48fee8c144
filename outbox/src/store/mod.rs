//! Every statement on the outbox tables. The two backends are twins: the same functions in the same
//! order, so that their difference is what the databases cannot say alike.

#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "reader")]
pub(crate) mod replay_piece;
#[cfg(feature = "reader")]
pub(crate) mod replay_row;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
#[cfg(feature = "postgres")]
pub(crate) mod unnest;
