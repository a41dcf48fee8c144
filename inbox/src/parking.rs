use std::time::Duration;

use crate::Settings;
use crate::backoff::Backoff;
use crate::ending::Reason;
use crate::store::micros;

/// Longest pause that a handler can ask for: more would overflow a database's times.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Shortest wait for an effect: time for whoever is at it to be done.
const SHORTEST: Duration = Duration::from_millis(10);

/// Why a run of a handler did not apply its message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Retry,
    RetryAfter(Duration),
    /// For the outcome of an effect, for so long or until somebody decides.
    Waiting(Option<Duration>),
    Hung,
    Early,
    Review,
    Reject,
}

impl Fault {
    pub(crate) fn new(kind: FaultKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// Who moves a parked message on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The inbox, after so long by the database's clock.
    Retry(Duration),
    /// The end of what is parked before it.
    Behind,
    /// A person.
    Review,
}

impl Next {
    /// As stored in `inbox_parked.state`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Retry(_) => "retry",
            Self::Behind => "behind",
            Self::Review => "review",
        }
    }

    pub(crate) fn after_micros(self) -> Option<i64> {
        match self {
            Self::Retry(after) => Some(micros(after.min(LONGEST))),
            Self::Behind | Self::Review => None,
        }
    }
}

/// How a message is parked.
#[derive(Debug, PartialEq, Eq)]
pub struct Parking {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
    pub(crate) next: Next,
    /// Runs of its handler until now.
    pub(crate) attempts: u32,
}

impl Parking {
    pub(crate) fn for_review(reason: Reason, detail: impl Into<String>, attempts: u32) -> Self {
        Self { reason, detail: detail.into(), next: Next::Review, attempts }
    }
}

impl Settings {
    /// What becomes of a message whose handler failed: for the `attempts`-th time, this run included,
    /// and `age` after it was parked first.
    pub(crate) fn parking(&self, fault: Fault, attempts: u32, age: Duration) -> Parking {
        let Fault { kind, detail } = fault;
        let again = |reason, pause| {
            if attempts >= self.max_attempts {
                (Reason::Exhausted, Next::Review, attempts)
            } else {
                (reason, Next::Retry(pause), attempts)
            }
        };
        let (reason, next, attempts) = match kind {
            FaultKind::Retry => again(Reason::Failed, self.attempts_backoff().pause(attempts)),
            FaultKind::Hung => again(Reason::Hung, self.attempts_backoff().pause(attempts)),
            FaultKind::RetryAfter(after) => again(Reason::Failed, after.min(LONGEST)),
            // Not the message's fault: this run spends no attempt. A decision makes it due earlier.
            FaultKind::Waiting(again_in) => {
                let pause = again_in.map_or(self.backoff_max, |pause| pause.max(SHORTEST));
                (Reason::Failed, Next::Retry(pause.min(LONGEST)), attempts - 1)
            }
            // Not the message's fault: this run spends no attempt. The pause grows with its age.
            FaultKind::Early if age < self.early_for => {
                let pause = self.early.max(age.min(self.early_max));
                (Reason::Early, Next::Retry(Backoff::shortened(pause)), attempts - 1)
            }
            FaultKind::Early => (Reason::Early, Next::Review, attempts),
            FaultKind::Review => (Reason::Review, Next::Review, attempts),
            FaultKind::Reject => (Reason::Rejected, Next::Review, attempts),
        };
        Parking { reason, detail, next, attempts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(kind: FaultKind, attempts: u32, age: u64) -> (Reason, Next, u32) {
        let settings = Settings { max_attempts: 3, ..Settings::default() };
        let parking = settings.parking(Fault::new(kind, "why"), attempts, Duration::from_secs(age));
        assert_eq!(parking.detail, "why");
        (parking.reason, parking.next, parking.attempts)
    }

    fn pause(next: Next) -> Duration {
        match next {
            Next::Retry(pause) => pause,
            Next::Behind | Next::Review => panic!("{next:?}"),
        }
    }

    #[test]
    fn failures_are_tried_again_until_the_limit() {
        for (kind, reason) in [(FaultKind::Retry, Reason::Failed), (FaultKind::Hung, Reason::Hung)]
        {
            let (parked, next, attempts) = after(kind, 2, 0);
            assert_eq!((parked, attempts), (reason, 2));
            assert!(pause(next) >= Duration::from_secs(1) && pause(next) <= Duration::from_secs(2));
            assert_eq!(after(kind, 3, 0), (Reason::Exhausted, Next::Review, 3));
        }
    }

    #[test]
    fn a_handler_chooses_its_pause_within_reason() {
        let minute = Duration::from_secs(60);
        let (reason, next, _) = after(FaultKind::RetryAfter(minute), 1, 0);
        assert_eq!((reason, next), (Reason::Failed, Next::Retry(minute)));
        assert_eq!(after(FaultKind::RetryAfter(Duration::MAX), 1, 0).1, Next::Retry(LONGEST));
        assert_eq!(after(FaultKind::RetryAfter(minute), 3, 0).0, Reason::Exhausted);
    }

    #[test]
    fn what_is_early_spends_no_attempt_and_ends_by_age() {
        let (reason, next, attempts) = after(FaultKind::Early, 9, 10);
        assert_eq!((reason, attempts), (Reason::Early, 8));
        assert!(pause(next) >= Duration::from_secs(5) && pause(next) <= Duration::from_secs(10));
        assert!(pause(after(FaultKind::Early, 1, 3000).1) <= Duration::from_secs(30));
        assert_eq!(after(FaultKind::Early, 9, 3600), (Reason::Early, Next::Review, 9));
    }

    #[test]
    fn waiting_for_an_effect_spends_no_attempt_however_long_it_lasts() {
        let second = Duration::from_secs(1);
        let (reason, next, attempts) = after(FaultKind::Waiting(Some(second)), 9, 10_000);
        assert_eq!((reason, next, attempts), (Reason::Failed, Next::Retry(second), 8));
        assert_eq!(after(FaultKind::Waiting(Some(Duration::ZERO)), 1, 0).1, Next::Retry(SHORTEST));
        assert_eq!(after(FaultKind::Waiting(None), 1, 0).1, Next::Retry(Duration::from_secs(600)));
    }

    #[test]
    fn a_person_decides_about_the_rest() {
        assert_eq!(after(FaultKind::Review, 1, 0), (Reason::Review, Next::Review, 1));
        assert_eq!(after(FaultKind::Reject, 1, 0), (Reason::Rejected, Next::Review, 1));
    }
}
