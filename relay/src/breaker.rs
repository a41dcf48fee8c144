use tokio::time::Instant as Timer;

use crate::settings::Settings;
use crate::status::Circuit;

/// Stops handing on when most of the traffic is refused or too much is held: a missing exchange or a
/// full queue must not turn a backlog of millions into as many holds.
#[derive(Debug)]
pub(crate) struct Breaker {
    tried: u64,
    refused: u64,
    /// How often in a row it opened.
    openings: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Closed,
    Open { until: Timer },
    HalfOpen,
}

/// Messages over which the share is taken, at least; twice as many at most.
const SAMPLE: u64 = 1_000;
/// Messages that are tried to see whether they still are refused.
pub(crate) const PROBE_ROWS: u32 = 50;

impl Breaker {
    pub(crate) const fn new() -> Self {
        Self { tried: 0, refused: 0, openings: 0, state: State::Closed }
    }

    /// Notes how so many new messages fared.
    pub(crate) fn note(&mut self, confirmed: u64, refused: u64, settings: &Settings) {
        // What was in flight when it opened tells nothing of how it is later.
        if matches!(self.state, State::Open { .. }) {
            return;
        }
        self.tried += confirmed + refused;
        self.refused += refused;
        match self.state {
            State::HalfOpen if self.tried > 0 => {
                if self.share() > settings.refused_share {
                    self.open(settings);
                } else {
                    *self = Self::new();
                }
            }
            State::Closed
                if self.tried >= settings.refused_sample
                    && self.share() > settings.refused_share =>
            {
                self.open(settings);
            }
            State::Closed | State::Open { .. } | State::HalfOpen => {}
        }
        if self.tried > 2 * SAMPLE.max(settings.refused_sample) {
            self.tried /= 2;
            self.refused /= 2;
        }
    }

    /// Where it stands, with so many messages held. Turns half open when its time has come.
    pub(crate) fn circuit(&mut self, now: Timer, held: u64, settings: &Settings) -> Circuit {
        if held >= settings.max_holds {
            return Circuit::OpenHolds;
        }
        match self.state {
            State::Open { until } if now < until => Circuit::OpenRefused,
            State::Open { .. } => {
                self.state = State::HalfOpen;
                Circuit::HalfOpen
            }
            State::HalfOpen => Circuit::HalfOpen,
            State::Closed => Circuit::Closed,
        }
    }

    fn share(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let share = self.refused as f64 / self.tried.max(1) as f64;
        share
    }

    fn open(&mut self, settings: &Settings) {
        let openings = self.openings + 1;
        let wait = settings.circuit_pause.jittered(openings);
        *self = Self { openings, state: State::Open { until: Timer::now() + wait }, ..Self::new() };
        tracing::warn!(?wait, "most messages are refused: nothing new is handed on for a while");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_over_its_share_probes_and_closes_again() {
        let settings = Settings::default();
        let mut breaker = Breaker::new();
        breaker.note(50, 40, &settings);
        assert_eq!(breaker.circuit(Timer::now(), 0, &settings), Circuit::Closed, "too few to tell");
        breaker.note(0, 60, &settings);
        assert_eq!(breaker.circuit(Timer::now(), 0, &settings), Circuit::OpenRefused);
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!(breaker.circuit(Timer::now(), 0, &settings), Circuit::HalfOpen);
        breaker.note(0, 1, &settings);
        assert_eq!(breaker.circuit(Timer::now(), 0, &settings), Circuit::OpenRefused);
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!(breaker.circuit(Timer::now(), 0, &settings), Circuit::HalfOpen);
        breaker.note(1, 0, &settings);
        assert_eq!(breaker.circuit(Timer::now(), 0, &settings), Circuit::Closed);
    }

    #[tokio::test]
    async fn it_is_open_while_too_many_are_held_and_forgets_what_is_long_ago() {
        let settings = Settings::default();
        let mut breaker = Breaker::new();
        let max = settings.max_holds;
        assert_eq!(breaker.circuit(Timer::now(), max, &settings), Circuit::OpenHolds);
        assert_eq!(breaker.circuit(Timer::now(), max - 1, &settings), Circuit::Closed);
        breaker.note(1_000_000, 0, &settings);
        for _ in 0..30 {
            breaker.note(0, 1_000, &settings);
        }
        assert_eq!(breaker.circuit(Timer::now(), 0, &settings), Circuit::OpenRefused);
    }
}
