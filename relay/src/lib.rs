//! Publishes an outbox: reads what is committed, publishes it with confirms, advances the cursor.
//!
//! [`Relay`] is the engine; it knows neither SQL nor AMQP. The `relay` program is a thin shell
//! around it and runs as a sidecar. In your own program or test:
//!
//! ```no_run
//! # #[cfg(feature = "sqlite")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use diesel::SqliteConnection;
//! use relay::{Relay, Settings};
//! use transport::memory::MemoryBroker;
//!
//! let db = db::Db::<SqliteConnection>::connect("shop.db", db::Settings::default()).await?;
//! let relay = Relay::new(db, Arc::new(MemoryBroker::new())).settings(Settings::default()).build()?;
//! relay.run(async { let _ = tokio::signal::ctrl_c().await; }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What happens to a message:
//!
//! 1. **read** by the snapshot cursor ([`outbox::reader`]), in chunks bounded by rows and bytes;
//! 2. **publish** on the lane its ordering key hashes to, one task and one channel per lane;
//! 3. **confirm**: each message of a lane's batch gets a verdict of its own;
//! 4. **advance**: when the oldest chunk is settled the cursor moves behind it, and what was refused
//!    is recorded as held in the same transaction. A crash repeats at most the chunks in flight.

mod answers;
mod backoff;
mod beside;
mod breaker;
mod builder;
mod deadline;
mod ended;
mod engine;
mod error;
mod flow;
mod held_keys;
mod holds;
mod judge;
mod lanes;
mod listener;
pub mod replay;
mod session;
mod settings;
mod settle;
mod shutdown;
mod status;
pub mod telemetry;
mod wakeup;
mod waves;
mod work;

pub use backoff::Backoff;
pub use builder::RelayBuilder;
pub use engine::{Drained, Relay};
pub use error::RelayError;
pub use settings::{DeadKey, Settings, SettingsError, Wake};
pub use status::{Circuit, Phase, Report, Status};
