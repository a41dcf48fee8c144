use std::time::Duration;

use crate::BuildError;
use crate::backoff::Backoff;

/// How an inbox works through its queue.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Deliveries applied at once, each in its own transaction on its own connection. Default 4. Raise
    /// it while the database has room; the pool must hold at least as many connections. With more than
    /// one, messages of one ordering key can overtake each other.
    pub concurrency: usize,
    /// Deliveries the broker sends ahead without an answer. Default 0: four per unit of concurrency.
    /// Raise it when the broker is far away. A delivery that waits between attempts counts.
    pub prefetch: u16,
    /// Runs of a failing handler before its message is parked as exhausted. Default 5; 1 parks at the
    /// first failure. Counted in this process: a redelivery starts anew.
    pub max_attempts: u32,
    /// The pause after the first failed attempt; doubled after each further one, and each shortened at
    /// random by up to half. Default 200 ms. Other deliveries go on meanwhile.
    pub backoff: Duration,
    /// The longest pause between attempts. Default 30 s.
    pub backoff_max: Duration,
    /// Repetitions of a whole transaction that lost against another one (serialization failure,
    /// deadlock, lock timeout, SQLite busy) before that counts as a failed attempt. Default 5.
    pub transaction_retries: u32,
    /// The first pause when broker or database are unavailable; doubled while they stay so, and each
    /// shortened at random by up to half. Default 100 ms.
    pub reconnect: Duration,
    /// The longest such pause. Default 10 s.
    pub reconnect_max: Duration,
    /// How long a delivery that cannot be settled, because the database is unavailable or another
    /// transaction holds its operation, is held without an answer and tried again, before it is given
    /// back to the queue. Spends no attempt. Default 10 min. Keep it below the broker's
    /// `consumer_timeout` (30 min), and not near zero: RabbitMQ 4 drops or dead-letters a message of a
    /// quorum queue that was given back 20 times.
    pub hold: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 4,
            prefetch: 0,
            max_attempts: 5,
            backoff: Duration::from_millis(200),
            backoff_max: Duration::from_secs(30),
            transaction_retries: 5,
            reconnect: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(10),
            hold: Duration::from_secs(600),
        }
    }
}

impl Settings {
    pub(crate) fn check(&self, pool_size: u32) -> Result<(), BuildError> {
        let bad =
            |setting, value: String, remedy| Err(BuildError::BadSetting { setting, value, remedy });
        if self.concurrency == 0 {
            return bad(
                "concurrency",
                "0".to_owned(),
                "nothing would ever be applied; set at least 1",
            );
        }
        if self.max_attempts == 0 {
            return bad(
                "max_attempts",
                "0".to_owned(),
                "no handler would ever run; set at least 1",
            );
        }
        if self.prefetch > 0 && usize::from(self.prefetch) < self.concurrency {
            let remedy =
                "workers would stay idle; set at least the concurrency, or 0 for the default";
            return bad("prefetch", self.prefetch.to_string(), remedy);
        }
        for (setting, first, longest) in [
            ("backoff", self.backoff, self.backoff_max),
            ("reconnect", self.reconnect, self.reconnect_max),
        ] {
            if first.is_zero() {
                return bad(
                    setting,
                    "0".to_owned(),
                    "failures would be repeated without a pause; set at least 1 ms",
                );
            }
            if first > longest {
                return bad(
                    setting,
                    format!("{first:?}"),
                    "it is above its maximum; lower it or raise that",
                );
            }
        }
        if u64::from(pool_size) < self.concurrency as u64 {
            return Err(BuildError::PoolTooSmall { concurrency: self.concurrency, pool_size });
        }
        Ok(())
    }

    pub(crate) fn effective_prefetch(&self) -> u16 {
        match self.prefetch {
            0 => u16::try_from(self.concurrency.saturating_mul(4)).unwrap_or(u16::MAX),
            set => set,
        }
    }

    pub(crate) const fn attempts_backoff(&self) -> Backoff {
        Backoff { first: self.backoff, longest: self.backoff_max }
    }

    pub(crate) const fn reconnect_backoff(&self) -> Backoff {
        Backoff { first: self.reconnect, longest: self.reconnect_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        type Spoil = fn(&mut Settings);
        let cases: [(Spoil, &str); 6] = [
            (|s| s.concurrency = 0, "concurrency is 0"),
            (|s| s.max_attempts = 0, "max_attempts is 0"),
            (|s| s.prefetch = 3, "prefetch is 3"),
            (|s| s.backoff = Duration::ZERO, "backoff is 0"),
            (|s| s.reconnect = Duration::from_secs(11), "reconnect is 11s"),
            (|s| s.concurrency = 9, "concurrency is 9 and the pool holds 8"),
        ];
        assert_eq!(Settings::default().check(4), Ok(()));
        for (spoil, text) in cases {
            let mut settings = Settings::default();
            spoil(&mut settings);
            let error = settings.check(8).expect_err(text).to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn the_default_prefetch_follows_the_concurrency() {
        let mut settings = Settings::default();
        assert_eq!(settings.effective_prefetch(), 16);
        settings.concurrency = usize::MAX;
        assert_eq!(settings.effective_prefetch(), u16::MAX);
        settings.prefetch = 7;
        assert_eq!(settings.effective_prefetch(), 7);
    }
}
