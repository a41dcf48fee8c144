use std::time::Duration;

use crate::Backoff;

/// How a replay is sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplaySettings {
    /// Who works on it, for whoever looks. Default: the process id.
    pub owner: String,
    /// How long the lease lasts without renewal, by the database's clock. Default 20 s. After a crash
    /// the replay can be resumed when it has ended.
    pub lease: Duration,
    /// Most messages in flight, which is what a crash can repeat. Default 200; a rate below a thousand
    /// a second makes it less, a fifth of a second's worth.
    pub batch: u32,
    /// Most bytes in flight, one message excepted. Default 4 MiB.
    pub batch_bytes: u64,
    /// How long broker or database may be unavailable, or the queue full, at a stretch before the
    /// replay fails. Default 5 min. It can be resumed then.
    pub patience: Duration,
    /// The pauses meanwhile.
    pub backoff: Backoff,
}

impl Default for ReplaySettings {
    fn default() -> Self {
        Self {
            owner: format!("process {}", std::process::id()),
            lease: Duration::from_secs(20),
            batch: 200,
            batch_bytes: 4 << 20,
            patience: Duration::from_secs(300),
            backoff: Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) },
        }
    }
}

impl ReplaySettings {
    /// How many messages go out at once at a rate.
    pub(crate) fn rows(&self, rate: u32, window: usize) -> u32 {
        let window = u32::try_from(window).unwrap_or(u32::MAX).max(1);
        (rate / 5).clamp(1, self.batch.max(1)).min(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_follows_the_rate_within_its_bounds() {
        let settings = ReplaySettings::default();
        for (rate, window, rows) in [
            (1, 1_000, 1),
            (100, 1_000, 20),
            (1_000, 1_000, 200),
            (50_000, 1_000, 200),
            (1_000, 50, 50),
        ] {
            assert_eq!(settings.rows(rate, window), rows, "{rate} a second");
        }
    }
}
