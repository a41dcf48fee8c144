use std::time::{Duration, SystemTime, UNIX_EPOCH};

use message::Message;

/// A checked message on its way into the table.
#[derive(Debug)]
pub struct NewRow {
    pub(crate) message: Message,
    pub(crate) deliver_after: Option<DeliverAfter>,
}

/// When a delayed message becomes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliverAfter {
    /// So long after it is stored, by the database's clock.
    Delay(Duration),
    /// At a point in time.
    At(SystemTime),
}

impl DeliverAfter {
    /// The delay in microseconds and the instant in microseconds since 1970; one of them is set.
    pub(crate) fn micros(self) -> (Option<i64>, Option<i64>) {
        match self {
            Self::Delay(delay) => (Some(clamped(delay)), None),
            Self::At(at) => match at.duration_since(UNIX_EPOCH) {
                Ok(since) => (None, Some(clamped(since))),
                Err(before) => (None, Some(-clamped(before.duration()))),
            },
        }
    }
}

/// Ten thousand years: more than any use, and still inside every timestamp type.
const FAR: i64 = 10_000 * 31_556_952 * 1_000_000 / 2;

fn clamped(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(FAR).min(FAR)
}

/// A duration in microseconds, far from overflow when a database adds it to its clock.
#[cfg(feature = "reader")]
pub(crate) fn micros(duration: Duration) -> i64 {
    clamped(duration)
}

/// A time in microseconds since 1970.
#[cfg(feature = "reader")]
pub(crate) fn micros_of(at: SystemTime) -> i64 {
    DeliverAfter::At(at).micros().1.unwrap_or_default()
}

/// A time of the database in microseconds since 1970, as a `SystemTime`.
#[cfg(feature = "reader")]
pub(crate) fn time_of(micros: i64) -> SystemTime {
    let magnitude = Duration::from_micros(micros.unsigned_abs());
    if micros >= 0 { UNIX_EPOCH + magnitude } else { UNIX_EPOCH - magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_delay_overflows() {
        assert_eq!(DeliverAfter::Delay(Duration::MAX).micros(), (Some(FAR), None));
        assert_eq!(DeliverAfter::Delay(Duration::from_millis(2)).micros(), (Some(2_000), None));
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(DeliverAfter::At(before).micros(), (None, Some(-1_000_000)));
    }
}
