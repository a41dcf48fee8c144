use std::collections::VecDeque;

/// Deliveries that make an interval worth judging. Smaller ones are added to the next: of three
/// deliveries one duplicate is a third, and means nothing.
const ENOUGH: u64 = 50;
/// Judged intervals that make up the recent range.
const RANGE: usize = 30;
/// Of these, how many there must be before anything is judged.
const FEWEST: usize = 5;
/// What an interval's share may be above the range without anybody being told.
const MARGIN: f64 = 0.02;
/// Standard errors: by chance alone an interval leaves the range once in about a thousand.
const SIGMAS: f64 = 3.1;

/// Finds when the share of duplicates leaves its recent range.
///
/// The rule. Intervals are merged until they hold at least 50 deliveries. The recent range ends at the
/// highest share among the last 30 judged intervals outside a spike; at least 5 of them must be known.
/// A spike begins with an interval whose share is above that by more than 2 percentage points, even at
/// the lower end of what chance explains (the Wilson bound at 3.1 standard errors). It ends with the
/// first interval back within the range and these 2 points, or after 30 intervals: what lasts so long
/// is no spike any more but the new range.
#[derive(Debug, Default)]
pub(crate) struct Spikes {
    recent: VecDeque<f64>,
    /// Not enough yet to be judged.
    open: Counts,
    spike: Option<Spike>,
}

/// Deliveries of an interval that applied something or found it applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) deliveries: u64,
    pub(crate) duplicates: u64,
}

/// A spike under way.
#[derive(Debug)]
struct Spike {
    usual: f64,
    shares: Vec<f64>,
}

/// What an interval has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Seen {
    /// Too few deliveries so far.
    TooFew,
    /// Judged, and nothing new.
    Share(f64),
    /// A spike has begun.
    Began { share: f64, usual: f64 },
    /// It is over.
    Ended {
        share: f64,
        usual: f64,
        /// The highest share while it lasted.
        highest: f64,
        /// It has lasted so long that it is what is usual now.
        stays: bool,
    },
}

impl Spikes {
    /// Takes the counts of one interval.
    pub(crate) fn interval(&mut self, counts: Counts) -> Seen {
        self.open.deliveries = self.open.deliveries.saturating_add(counts.deliveries);
        self.open.duplicates = self.open.duplicates.saturating_add(counts.duplicates);
        if self.open.deliveries < ENOUGH {
            return Seen::TooFew;
        }
        let counts = std::mem::take(&mut self.open);
        let share = share(counts);
        match self.spike.take() {
            None => self.outside(counts, share),
            Some(spike) => self.within(spike, share),
        }
    }

    fn outside(&mut self, counts: Counts, share: f64) -> Seen {
        let usual = self.recent.iter().copied().fold(0.0, f64::max);
        if self.recent.len() >= FEWEST && lower_bound(counts) > usual + MARGIN {
            self.spike = Some(Spike { usual, shares: vec![share] });
            return Seen::Began { share, usual };
        }
        self.remember(share);
        Seen::Share(share)
    }

    fn within(&mut self, mut spike: Spike, share: f64) -> Seen {
        spike.shares.push(share);
        let usual = spike.usual;
        let highest = spike.shares.iter().copied().fold(0.0, f64::max);
        if share <= usual + MARGIN {
            self.remember(share);
            return Seen::Ended { share, usual, highest, stays: false };
        }
        if spike.shares.len() > RANGE {
            spike.shares.into_iter().for_each(|share| self.remember(share));
            return Seen::Ended { share, usual, highest, stays: true };
        }
        self.spike = Some(spike);
        Seen::Share(share)
    }

    fn remember(&mut self, share: f64) {
        if self.recent.len() == RANGE {
            self.recent.pop_front();
        }
        self.recent.push_back(share);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of an interval are far below 2^52")]
fn share(counts: Counts) -> f64 {
    if counts.deliveries == 0 { 0.0 } else { counts.duplicates as f64 / counts.deliveries as f64 }
}

/// The lower end of the Wilson interval: the least share that explains what was counted.
#[expect(clippy::cast_precision_loss, reason = "counts of an interval are far below 2^52")]
fn lower_bound(counts: Counts) -> f64 {
    let (n, p) = (counts.deliveries.max(1) as f64, share(counts));
    let square = SIGMAS * SIGMAS;
    let middle = p + square / (2.0 * n);
    let half = SIGMAS * (p * (1.0 - p) / n + square / (4.0 * n * n)).sqrt();
    ((middle - half) / (1.0 + square / n)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(duplicates: u64, deliveries: u64) -> Counts {
        Counts { deliveries, duplicates }
    }

    /// Shares of one to three percent.
    fn quiet() -> Spikes {
        let mut spikes = Spikes::default();
        for percent in [1, 3, 2, 1, 2, 3, 2, 1] {
            assert_eq!(
                spikes.interval(of(percent * 10, 1000)),
                Seen::Share(percent as f64 / 100.0)
            );
        }
        spikes
    }

    #[test]
    fn a_spike_begins_once_and_ends_once() {
        let mut spikes = quiet();
        let began = spikes.interval(of(200, 1000));
        assert_eq!(began, Seen::Began { share: 0.2, usual: 0.03 });
        assert_eq!(spikes.interval(of(300, 1000)), Seen::Share(0.3));
        assert_eq!(spikes.interval(of(100, 1000)), Seen::Share(0.1));
        let ended = Seen::Ended { share: 0.04, usual: 0.03, highest: 0.3, stays: false };
        assert_eq!(spikes.interval(of(40, 1000)), ended);
        assert_eq!(spikes.interval(of(30, 1000)), Seen::Share(0.03));
        // What happened within it has not widened the range.
        assert!(matches!(spikes.interval(of(150, 1000)), Seen::Began { .. }));
    }

    #[test]
    fn what_is_within_the_range_and_its_margin_is_none() {
        let mut spikes = quiet();
        for duplicates in [50, 0, 30, 45] {
            assert!(
                matches!(spikes.interval(of(duplicates, 1000)), Seen::Share(_)),
                "{duplicates}"
            );
        }
    }

    #[test]
    fn a_few_deliveries_are_gathered_until_they_say_something() {
        let mut spikes = quiet();
        // All of them duplicates: a restart of the consumer gives back what it held.
        assert_eq!(spikes.interval(of(4, 4)), Seen::TooFew);
        assert_eq!(spikes.interval(of(0, 0)), Seen::TooFew);
        assert_eq!(spikes.interval(of(0, 46)), Seen::Share(0.08), "chance explains 4 in 50");
        for _ in 0..4 {
            assert_eq!(spikes.interval(of(10, 10)), Seen::TooFew);
        }
        assert!(matches!(spikes.interval(of(10, 10)), Seen::Began { share: 1.0, .. }));
    }

    #[test]
    fn nothing_is_judged_before_there_is_a_range() {
        let mut spikes = Spikes::default();
        for duplicates in [0, 900, 0, 0, 0] {
            assert!(
                matches!(spikes.interval(of(duplicates, 1000)), Seen::Share(_)),
                "{duplicates}"
            );
        }
        // A consumer that begins on a replayed queue has seen worse.
        assert!(matches!(spikes.interval(of(500, 1000)), Seen::Share(_)));
        assert!(matches!(spikes.interval(of(990, 1000)), Seen::Began { .. }));
    }

    #[test]
    fn what_lasts_becomes_what_is_usual() {
        let mut spikes = quiet();
        assert!(matches!(spikes.interval(of(200, 1000)), Seen::Began { .. }));
        for _ in 0..29 {
            assert_eq!(spikes.interval(of(200, 1000)), Seen::Share(0.2));
        }
        let ended = Seen::Ended { share: 0.2, usual: 0.03, highest: 0.2, stays: true };
        assert_eq!(spikes.interval(of(200, 1000)), ended);
        assert_eq!(spikes.interval(of(210, 1000)), Seen::Share(0.21));
        assert!(matches!(spikes.interval(of(400, 1000)), Seen::Began { usual: 0.21, .. }));
    }

    #[test]
    fn an_old_high_is_forgotten() {
        let mut spikes = Spikes::default();
        assert_eq!(spikes.interval(of(500, 1000)), Seen::Share(0.5));
        for _ in 0..29 {
            assert_eq!(spikes.interval(of(10, 1000)), Seen::Share(0.01));
        }
        assert!(matches!(spikes.interval(of(400, 1000)), Seen::Share(_)), "within its range");
        for _ in 0..30 {
            let _ = spikes.interval(of(10, 1000));
        }
        assert!(matches!(spikes.interval(of(400, 1000)), Seen::Began { usual: 0.01, .. }));
    }

    #[test]
    fn the_bound_is_wilson_s() {
        // By hand: p = 0.2, n = 100, z = 3.1.
        assert!((lower_bound(of(20, 100)) - 0.1049).abs() < 0.0002, "{}", lower_bound(of(20, 100)));
        assert_eq!(lower_bound(of(0, 100)), 0.0);
    }
}
