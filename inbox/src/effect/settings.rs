use std::time::Duration;

use crate::BuildError;
use crate::backoff::Backoff;

/// How calls of effects are bounded, and how a provider is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Longest call; what has not answered by then is unknown. Default 30 s. It counts from before the intent is
    /// committed, by this machine's monotonic clock. In an inbox never more than half of
    /// [`handler_deadline`](crate::Settings::handler_deadline), whatever is set: keep all effects of one `prepare`
    /// together below that. An effect can have its own ([`Effect::deadline`](super::Effect::deadline)).
    pub deadline: Duration,
    /// How long after its deadline a call may still take effect: a request that was sent, and lies in a buffer or
    /// in the provider's queue. Nobody asks before, and nobody calls again unless the call has reported and is safe
    /// to repeat: then the provider keeps the two apart. Default 10 s. Raise it to what the provider says
    /// about its own timeouts: an answer `NotDone` that comes before the request itself makes an effect happen
    /// twice.
    pub grace: Duration,
    /// The pause after the first question that the provider cannot answer; doubled after each further one, and each
    /// shortened at random by up to half. Default 5 s.
    pub ask_pause: Duration,
    /// The longest such pause. Default 10 min.
    pub ask_pause_max: Duration,
    /// Longest wait for an answer to a question; without one it is asked again later. Default 10 s, and in an inbox
    /// never more than half of its handler's deadline.
    pub ask_deadline: Duration,
    /// Questions until a person has to decide. Default 20: about two and a half hours.
    pub asks: u32,
    /// How long an outcome may stay unknown until a person has to decide, also where nobody asks, and where it is
    /// safe to repeat: set no more than the provider keeps keys for. Default 24 h.
    pub unknown_for: Duration,
    /// How often effects are looked for whose process has died or whose provider is to be asked. Default 5 s.
    pub poll: Duration,
    /// Effects that one round takes on. Default 100.
    pub batch: u32,
    /// No call lasts longer, whatever is set for it: in an inbox its handler would be given up before it.
    pub(crate) longest: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            grace: Duration::from_secs(10),
            ask_pause: Duration::from_secs(5),
            ask_pause_max: Duration::from_secs(600),
            ask_deadline: Duration::from_secs(10),
            asks: 20,
            unknown_for: Duration::from_secs(24 * 3600),
            poll: Duration::from_secs(5),
            batch: 100,
            longest: Duration::MAX,
        }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let bad =
            |setting, value: String, remedy| Err(BuildError::BadSetting { setting, value, remedy });
        for (setting, value, remedy) in [
            (
                "effects.deadline",
                self.deadline,
                "no provider could ever answer; set what a call may take",
            ),
            (
                "effects.ask_pause",
                self.ask_pause,
                "a provider would be asked without a pause; set at least 1 ms",
            ),
            (
                "effects.ask_deadline",
                self.ask_deadline,
                "no provider could ever answer; set what a question may take",
            ),
            (
                "effects.poll",
                self.poll,
                "the table would be searched without a pause; set at least 1 ms",
            ),
        ] {
            if value.is_zero() {
                return bad(setting, "0".to_owned(), remedy);
            }
        }
        for (setting, value) in [("effects.asks", self.asks), ("effects.batch", self.batch)] {
            if value == 0 {
                return bad(setting, "0".to_owned(), "nothing would ever be asked; set at least 1");
            }
        }
        if self.ask_pause > self.ask_pause_max {
            let remedy = "it is above effects.ask_pause_max; lower it or raise that";
            return bad("effects.ask_pause", format!("{:?}", self.ask_pause), remedy);
        }
        Ok(())
    }

    pub(crate) const fn ask_backoff(&self) -> Backoff {
        Backoff { first: self.ask_pause, longest: self.ask_pause_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        type Spoil = fn(&mut Settings);
        let cases: [(Spoil, &str); 7] = [
            (|s| s.deadline = Duration::ZERO, "effects.deadline is 0"),
            (|s| s.ask_pause = Duration::ZERO, "effects.ask_pause is 0"),
            (|s| s.ask_pause = Duration::from_secs(601), "effects.ask_pause is 601s"),
            (|s| s.ask_deadline = Duration::ZERO, "effects.ask_deadline is 0"),
            (|s| s.poll = Duration::ZERO, "effects.poll is 0"),
            (|s| s.asks = 0, "effects.asks is 0"),
            (|s| s.batch = 0, "effects.batch is 0"),
        ];
        assert_eq!(Settings::default().check(), Ok(()));
        for (spoil, text) in cases {
            let mut settings = Settings::default();
            spoil(&mut settings);
            let error = settings.check().expect_err(text).to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
