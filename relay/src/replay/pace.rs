use std::time::Duration;

use tokio::time::Instant;

/// Spreads messages out in time.
pub(super) struct Pace {
    each: Duration,
    next: Instant,
}

impl Pace {
    pub(super) fn new(rate: u32) -> Self {
        Self { each: Duration::from_secs(1) / rate.max(1), next: Instant::now() }
    }

    /// How long to wait before the next batch.
    pub(super) fn wait(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// So many messages go out now. Time that was lost is not caught up: after an outage the consumer
    /// gets no burst.
    pub(super) fn sending(&mut self, messages: u32) {
        self.next = self.next.max(Instant::now()) + self.each * messages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_has_its_rate_and_lost_time_is_not_caught_up() {
        let mut pace = Pace::new(100);
        let began = Instant::now();
        for _ in 0..10 {
            tokio::time::sleep(pace.wait()).await;
            pace.sending(20);
        }
        assert_eq!(began.elapsed(), Duration::from_millis(1_800));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(pace.wait(), Duration::ZERO);
        pace.sending(20);
        assert_eq!(pace.wait(), Duration::from_millis(200));
    }
}
