//! The tables, for PostgreSQL and SQLite, as SQL files embedded in the program.
//!
//! Three ways to run them, all with the same result, because each file stamps itself into the table
//! `counterfoil_schema`:
//!
//! * [`run`], or `relay migrate` from the shell: takes a lock, so five processes may start at once;
//! * the host's own diesel harness, by adding [`POSTGRES`] or [`SQLITE`] to its sources;
//! * any other tool, with the files under `migrations/postgres` and `migrations/sqlite`.
//!
//! [`run`] keeps no record in diesel's own bookkeeping table, so it never meets the host's
//! migrations there. Everything runs in the schema that is first on the connection's search path.
//!
//! On PostgreSQL [`create_roles`], or `relay roles`, then makes roles with the least rights for producers,
//! relays, consumers and operators.
//!
//! ```
//! # #[cfg(feature = "sqlite")] {
//! use diesel::{Connection, SqliteConnection};
//!
//! let mut conn = SqliteConnection::establish(":memory:")?;
//! let applied = migrations::run(&mut conn)?;
//! assert!(applied.iter().any(|name| name.ends_with("_outbox")));
//! migrations::check(&mut conn)?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod harness;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod roles;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use error::{MigrationFailed, SchemaError};
pub use harness::{Migrate, Stamp, applied, check, revert_all, revert_last, run};
#[cfg(feature = "postgres")]
pub use postgres::POSTGRES;
#[cfg(feature = "postgres")]
pub use roles::{Roles, RolesError, create_roles, current_schema, roles_sql};
#[cfg(feature = "sqlite")]
pub use sqlite::SQLITE;
