use std::time::Duration;

/// Waits that double from `first` to `longest`, with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row (from 1), without jitter.
    #[must_use]
    pub fn exact(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// The same, shortened by up to a half at random, so that what failed together does not come
    /// back together.
    #[must_use]
    pub fn jittered(&self, failures: u32) -> Duration {
        self.exact(failures).mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff =
            Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        let waits: Vec<_> = (0..7).map(|n| backoff.exact(n).as_millis()).collect();
        assert_eq!(waits, [100, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.exact(u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn jitter_takes_away_at_most_a_half() {
        let backoff =
            Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        for _ in 0..1_000 {
            let wait = backoff.jittered(1);
            assert!(wait >= Duration::from_millis(50) && wait <= Duration::from_millis(100));
        }
    }
}
