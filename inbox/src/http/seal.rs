use std::error::Error;
use std::fmt;

/// Encrypts replies before they are stored, and decrypts them for a repeat.
///
/// `context` names the key's row and is the same for both; bind it as associated data, so that a reply
/// that was moved to another row does not open. Which key encrypted is yours to write into the bytes.
/// Both run inside the business transaction: they must not call the world.
pub trait Seal: fmt::Debug + Send + Sync {
    /// Encrypts.
    ///
    /// # Errors
    /// Whatever prevents it. The request then fails and its transaction is rolled back; behind the layer, whose
    /// handler has run by then, only that it has is kept.
    fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;

    /// Decrypts.
    ///
    /// # Errors
    /// Whatever prevents it. The repeat is then answered with 409; the handler does not run.
    fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;
}
