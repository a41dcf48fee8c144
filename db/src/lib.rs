//! How a connection is held: one pool, the only place that blocks a thread on the database, and the
//! classes of database errors that the rest of the project acts on.

mod abandoned;
mod address;
mod backend;
mod class;
mod connect;
#[cfg(feature = "postgres")]
mod conninfo;
mod error;
mod manager;
mod opening;
mod pool;
#[cfg(feature = "postgres")]
mod pooler;
#[cfg(feature = "postgres")]
mod postgres;
mod settings;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "postgres")]
mod tls;

pub use address::redacted;
pub use backend::{Backend, Refusal};
pub use class::{Class, classify};
pub use error::{CallError, OpenError};
pub use manager::Pooled;
pub use pool::Db;
#[cfg(feature = "postgres")]
pub use pooler::pooler_suspected;
pub use settings::Settings;
