use std::time::Duration;

/// Pauses that double up to a limit, each shortened at random by up to half so that those who failed
/// together do not come back together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Backoff {
    /// The pause after the `failures`-th failure in a row, from 1.
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        Self::shortened(self.full(failures))
    }

    /// A pause shortened at random by up to half.
    pub(crate) fn shortened(full: Duration) -> Duration {
        full.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    fn full(&self, failures: u32) -> Duration {
        let doubled = 2_u32.checked_pow(failures.saturating_sub(1));
        let full = doubled.and_then(|factor| self.first.checked_mul(factor));
        full.unwrap_or(self.longest).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_never_overflow() {
        let backoff =
            Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        let full: Vec<u128> =
            [0, 1, 2, 3, 4, 5, 33, u32::MAX].map(|n| backoff.full(n).as_millis()).into();
        assert_eq!(full, [100, 100, 200, 400, 800, 1000, 1000, 1000]);
        let longest = Backoff { first: Duration::MAX, longest: Duration::MAX };
        assert!(longest.pause(u32::MAX) <= Duration::MAX);
    }

    #[test]
    fn a_pause_is_between_half_and_all_of_it() {
        let backoff =
            Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        for _ in 0..100 {
            let pause = backoff.pause(2);
            assert!(
                pause >= Duration::from_millis(100) && pause <= Duration::from_millis(200),
                "{pause:?}"
            );
        }
    }
}
