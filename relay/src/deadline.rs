use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Until when this process may believe in its lease, by its own monotonic clock.
///
/// The broker knows nothing of epochs, so nothing there stops a holder that was frozen and has been
/// replaced. Each lane looks here before it publishes.
#[derive(Clone, Debug)]
pub(crate) struct LeaseDeadline {
    start: Instant,
    millis: Arc<AtomicU64>,
    ttl: Duration,
}

impl LeaseDeadline {
    /// A lease whose statement was sent at `asked`: counted from before it was sent, because the
    /// database began to count at some time after that.
    pub(crate) fn new(asked: Instant, ttl: Duration) -> Self {
        let deadline = Self { start: asked, millis: Arc::default(), ttl };
        deadline.renewed(asked);
        deadline
    }

    pub(crate) fn renewed(&self, asked: Instant) {
        let until = (asked + self.ttl).saturating_duration_since(self.start);
        let millis = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.millis.fetch_max(millis, Ordering::Relaxed);
    }

    /// How long a renewal lasts.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// When it passes unless it is renewed.
    pub(crate) fn ends(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }

    pub(crate) fn passed(&self) -> bool {
        Instant::now() >= self.ends()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_counts_from_when_it_was_asked_for() {
        let long_ago =
            Instant::now().checked_sub(Duration::from_secs(60)).expect("uptime of a minute");
        let deadline = LeaseDeadline::new(long_ago, Duration::from_secs(20));
        assert!(deadline.passed());
        deadline.renewed(Instant::now());
        assert!(!deadline.passed());
        // An answer that comes in late does not shorten it.
        deadline.renewed(long_ago);
        assert!(!deadline.passed());
    }
}
