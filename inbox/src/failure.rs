use std::fmt;
use std::time::Duration;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What a handler says should happen with a message it could not apply. Its transaction is rolled back
/// either way, and the message is kept in `inbox_parked` before it is acknowledged.
///
/// `?` turns any error into [`Failure::Retry`]. It deliberately is no `std::error::Error` itself: that
/// is what makes this conversion possible.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Try again after a pause that grows, up to
    /// [`Settings::max_attempts`](crate::Settings::max_attempts) runs; then a person decides. A
    /// database error among its sources that means contention repeats the transaction at once
    /// instead, and one that means the database is unavailable waits for it; neither spends an attempt.
    Retry(Source),
    /// The same with a pause of the handler's choice, for example the one a provider asked for.
    RetryAfter {
        /// Why.
        source: Source,
        /// Not before so long from now, by the database's clock. At most a year.
        after: Duration,
    },
    /// It came before its time: what it builds on is not there yet. Kept and tried again, without
    /// spending attempts, for as long as [`Settings::early_for`](crate::Settings::early_for); then a
    /// person decides.
    Early {
        /// What is missing.
        reason: String,
    },
    /// A person has to decide, now.
    Review {
        /// What about.
        reason: String,
    },
    /// It can never be applied. Kept as rejected, not tried again.
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

    /// [`Failure::RetryAfter`].
    pub fn retry_after(after: Duration, source: impl Into<Source>) -> Self {
        Self::RetryAfter { source: source.into(), after }
    }

    /// [`Failure::Early`].
    pub fn early(reason: impl Into<String>) -> Self {
        Self::Early { reason: reason.into() }
    }

    /// [`Failure::Review`].
    pub fn review(reason: impl Into<String>) -> Self {
        Self::Review { reason: reason.into() }
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
            Self::Retry(source) | Self::RetryAfter { source, .. } => f.write_str(&chain(&**source)),
            Self::Early { reason } | Self::Review { reason } | Self::Reject { reason } => {
                f.write_str(reason)
            }
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
