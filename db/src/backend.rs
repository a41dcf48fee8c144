use std::time::Duration;

use diesel::r2d2::R2D2Connection;
use diesel::{Connection, result::Error};

use crate::{CallError, OpenError, Settings};

/// Why no connection could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody answered as a database should; waiting may help.
    Unreachable,
    /// The login was refused.
    Login,
    /// TLS failed, or the server's certificate is not accepted.
    Unproven,
    /// A pooler does not pass on a parameter of the address.
    Parameter,
}

/// A kind of connection this project can work on. Implemented for `PgConnection` and
/// `SqliteConnection`.
pub trait Backend: Connection + R2D2Connection + Send + 'static {
    /// The address to hand to the client library.
    ///
    /// # Errors
    /// [`OpenError::BadAddress`].
    fn address(address: &str, settings: &Settings) -> Result<String, OpenError>;

    /// Sets the guards on a new connection and checks that the database is recent enough.
    ///
    /// # Errors
    /// What the database said, or what is too old.
    fn prepare(&mut self, settings: &Settings) -> Result<(), Error>;

    /// What the client library's message about a failed attempt to connect means.
    fn refusal(message: &str) -> Refusal;

    /// Longest wait for a lock under `settings`; `None` for no limit.
    fn lock_wait(settings: &Settings) -> Option<Duration>;

    /// Runs `work` as [`Db::call`](crate::Db::call) does: as it is, or behind a transaction pooler in one
    /// transaction that brings its guards along.
    ///
    /// # Errors
    /// [`CallError::Work`], [`CallError::Begin`] or [`CallError::Commit`]; then nothing is kept, unless a
    /// lost connection leaves the outcome of COMMIT unknown.
    fn unit<T, E>(
        &mut self,
        settings: &Settings,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, CallError<E>>;

    /// Runs `work` in a transaction that may write from its first statement on.
    ///
    /// # Errors
    /// The work's error, or the database's in its form; then nothing is kept. When COMMIT itself
    /// fails its outcome can be unknown.
    fn write<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E>;
}
