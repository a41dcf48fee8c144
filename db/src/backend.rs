use diesel::r2d2::R2D2Connection;
use diesel::{Connection, result::Error};

use crate::{OpenError, Settings};

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

    /// Whether the client library's message means that the login was refused.
    fn is_login_refused(message: &str) -> bool;

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
