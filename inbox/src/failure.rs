use std::fmt;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What a handler says should happen with a message it could not apply. Its transaction is rolled back
/// either way.
///
/// `?` turns any error into [`Failure::Retry`]. It deliberately is no `std::error::Error` itself: that
/// is what makes this conversion possible.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Try again: after a pause, up to [`Settings::max_attempts`](crate::Settings::max_attempts)
    /// times, then park it as exhausted. A database error among its sources that means contention
    /// repeats the transaction at once instead, and one that means the database is unavailable waits
    /// for it; neither spends an attempt.
    Retry(Source),
    /// It can never be applied: park it as rejected, now.
    Reject {
        /// Why, for the people who look at the parking lot.
        reason: String,
    },
}

impl Failure {
    /// [`Failure::Retry`] from anything that can be an error: a text, `anyhow::Error`, …
    pub fn retry(source: impl Into<Source>) -> Self {
        Self::Retry(source.into())
    }

    /// [`Failure::Reject`].
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject { reason: reason.into() }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Retry(Box::new(error))
    }
}

/// An error with its sources, for the parking lot. Sources already contained in the text above them
/// are left out.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = error.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(source) => f.write_str(&chain(&**source)),
            Self::Reject { reason } => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot credit")]
    struct Outer(#[source] std::num::ParseIntError);

    fn handler() -> Result<i32, Failure> {
        Ok("x".parse::<i32>().map_err(Outer)?)
    }

    #[test]
    fn any_error_becomes_a_retry_with_its_sources() {
        let failure = handler().expect_err("no number");
        assert_eq!(failure.to_string(), "cannot credit: invalid digit found in string");
        assert!(matches!(failure, Failure::Retry(_)));
    }
}
