use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::BoxError;
use crate::failure::chain;
use crate::park::detail;

/// Why a call brought no result.
///
/// `?` turns any error into [`CallFailure::Unknown`]: what nobody has looked at may have happened. It deliberately
/// is no `std::error::Error` itself: that is what makes this conversion possible.
#[derive(Debug)]
pub enum CallFailure {
    /// The provider said no, and means it: the card was declined, the address does not exist. Stored, and not asked
    /// for again.
    Refused(String),
    /// Certainly not performed: the connection was refused, the provider said "too many requests" before it did
    /// anything. It may be called again.
    NotDone(BoxError),
    /// It may have been performed or not: a timeout, a connection that broke, an error 500.
    Unknown(BoxError),
}

impl CallFailure {
    /// [`CallFailure::Refused`].
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }

    /// [`CallFailure::NotDone`].
    pub fn not_done(source: impl Into<BoxError>) -> Self {
        Self::NotDone(source.into())
    }

    /// [`CallFailure::Unknown`].
    pub fn unknown(source: impl Into<BoxError>) -> Self {
        Self::Unknown(source.into())
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for CallFailure {
    fn from(error: E) -> Self {
        Self::Unknown(Box::new(error))
    }
}

/// What a provider says about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<R> {
    /// It was performed, with this result.
    Done(R),
    /// It was not, and will not be by a request that is still under way.
    NotDone,
    /// The provider does not know, or nobody answers. Asked again later.
    StillUnknown,
}

/// How a call ended, as the ledger takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With the result as JSON; `None` stands for null.
    Done(Option<String>),
    Refused(String),
    NotDone(String),
    Unknown(String),
}

/// When a time that begins now is over. One that no clock can count to is as good as none.
pub(crate) fn over_in(time: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now + YEAR)
}

/// Runs a call until it answers, panics or `until` has come.
///
/// The clock is looked at before the call is polled and not after: a process that was frozen over its deadline must
/// not wake up and send what it was about to send.
pub(crate) async fn bounded<T, F>(until: Instant, call: impl FnOnce() -> F) -> Ended<T>
where
    F: Future<Output = T>,
{
    if Instant::now() >= until {
        return Ended::NotBegun;
    }
    let call = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(call) => call,
        Err(panic) => return Ended::Panicked(text(&*panic)),
    };
    let (mut call, mut alarm) = (pin!(call), pin!(sleep_until(until)));
    poll_fn(|cx| {
        if Instant::now() >= until {
            return Poll::Ready(Ended::TimedOut);
        }
        match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
            Ok(Poll::Ready(done)) => return Poll::Ready(Ended::Answered(done)),
            Err(panic) => return Poll::Ready(Ended::Panicked(text(&*panic))),
            Ok(Poll::Pending) => {}
        }
        alarm.as_mut().poll(cx).map(|()| Ended::TimedOut)
    })
    .await
}

/// How a bounded call ended.
#[derive(Debug)]
pub(crate) enum Ended<T> {
    Answered(T),
    /// Its time was over before it was begun: nothing was sent.
    NotBegun,
    TimedOut,
    Panicked(String),
}

/// The same for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallEnded {
    Answered,
    NotBegun,
    TimedOut,
    Panicked,
}

impl CallEnded {
    pub(crate) const ALL: [Self; 4] =
        [Self::Answered, Self::NotBegun, Self::TimedOut, Self::Panicked];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotBegun => "not_begun",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
        }
    }
}

impl<T> Ended<T> {
    pub(crate) const fn kind(&self) -> CallEnded {
        match self {
            Self::Answered(_) => CallEnded::Answered,
            Self::NotBegun => CallEnded::NotBegun,
            Self::TimedOut => CallEnded::TimedOut,
            Self::Panicked(_) => CallEnded::Panicked,
        }
    }

    /// Why there is no answer, for people.
    pub(crate) fn answer(self) -> Result<T, CallFailure> {
        match self {
            Self::Answered(answer) => Ok(answer),
            Self::NotBegun => Err(CallFailure::not_done("its time was over before it was begun")),
            Self::TimedOut => Err(CallFailure::unknown("no answer in time")),
            Self::Panicked(text) => Err(CallFailure::unknown(format!("panicked: {text}"))),
        }
    }
}

impl From<&CallFailure> for Outcome {
    fn from(failure: &CallFailure) -> Self {
        match failure {
            CallFailure::Refused(reason) => Self::Refused(detail(reason)),
            CallFailure::NotDone(source) => Self::NotDone(detail(&chain(&**source))),
            CallFailure::Unknown(source) => Self::Unknown(detail(&chain(&**source))),
        }
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    crate::engine::panic_text(panic).to_owned()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn run<T>(scenario: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("builds")
            .block_on(scenario)
    }

    #[test]
    fn a_call_whose_time_is_over_is_not_begun() {
        run(async {
            let ended = bounded(Instant::now(), || async { panic!("begun") }).await;
            assert!(matches!(ended, Ended::<()>::NotBegun));
        });
    }

    #[test]
    fn a_call_that_is_frozen_over_its_deadline_is_polled_no_more() {
        run(async {
            let polls = Cell::new(0);
            let until = Instant::now() + Duration::from_millis(500);
            let frozen = poll_fn(|cx| {
                polls.set(polls.get() + 1);
                // Longer than there is time, as in a process that is stopped meanwhile.
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
                cx.waker().wake_by_ref();
                if polls.get() == 1 { Poll::Pending } else { Poll::Ready(()) }
            });
            assert!(matches!(bounded(until, || frozen).await, Ended::TimedOut));
            assert_eq!(polls.get(), 1);
        });
    }

    #[test]
    fn panics_at_either_moment_are_outcomes() {
        run(async {
            let until = Instant::now() + Duration::from_secs(60);
            let early = bounded(until, || -> std::future::Ready<()> { panic!("early") }).await;
            assert!(matches!(early, Ended::Panicked(text) if text == "early"));
            let late = bounded(until, || async { panic!("late") }).await;
            assert!(matches!(late, Ended::<()>::Panicked(text) if text == "late"));
        });
    }
}
