//! How a connection is held: one pool, the only place that blocks a thread on the database, and the
//! classes of database errors that the rest of the project acts on.

mod address;
mod backend;
mod class;
mod error;
mod manager;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod settings;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use address::redacted;
pub use backend::Backend;
pub use class::{Class, classify};
pub use error::{CallError, OpenError};
pub use manager::Pooled;
pub use pool::Db;
pub use settings::Settings;
