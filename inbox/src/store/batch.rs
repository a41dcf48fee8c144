use serde::Serialize;

/// A claim as the database reads it, one of several in a JSON array: arrays of values are not to be had on
/// both backends, and one text costs one parameter.
#[derive(Debug, Serialize)]
pub(crate) struct BatchClaim<'a> {
    pub(crate) scope: &'a str,
    pub(crate) operation: &'a str,
    /// In hexadecimal.
    pub(crate) fingerprint: String,
    pub(crate) message_id: Option<&'a str>,
}

/// A result, in the same way.
#[derive(Debug, Serialize)]
pub(crate) struct BatchResult<'a> {
    pub(crate) scope: &'a str,
    pub(crate) operation: &'a str,
    /// JSON as a text, so that the very same bytes come back.
    pub(crate) result: String,
    pub(crate) verdict: Option<&'static str>,
}
