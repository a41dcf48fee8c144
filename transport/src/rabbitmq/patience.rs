use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::Unavailable;

/// Whether the broker reads what is published on a connection.
#[derive(Clone, Debug)]
pub(super) enum Flow {
    /// It does, since then.
    Open(Instant),
    /// A memory or disk alarm: it has stopped reading, and says so.
    Blocked(Instant, String),
}

impl Flow {
    pub(super) fn open() -> Self {
        Self::Open(Instant::now())
    }

    pub(super) fn blocked(&self) -> Option<&str> {
        match self {
            Self::Open(_) => None,
            Self::Blocked(_, reason) => Some(reason),
        }
    }
}

/// A deadline over a row of answers. It starts anew with each answer that comes, so that a slow broker
/// is slow and not dead, and stands still while the broker blocks publishing, which has a limit of its
/// own.
///
/// One deadline over the whole row would be a livelock: what cannot be answered in time is sent again
/// unchanged, and cannot be answered in time again.
pub(super) struct Patience {
    step: &'static str,
    after: Duration,
    blocked_timeout: Duration,
    flow: watch::Receiver<Flow>,
    since: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl Patience {
    pub(super) fn new(
        step: &'static str,
        after: Duration,
        blocked_timeout: Duration,
        flow: watch::Receiver<Flow>,
    ) -> Self {
        let since = Instant::now();
        let alarm = Box::pin(sleep_until(since + after));
        Self { step, after, blocked_timeout, flow, since, alarm }
    }

    /// Something was answered.
    pub(super) fn progress(&mut self) {
        self.since = Instant::now();
    }

    /// Waits for one answer of the row. A second call with the same request goes on waiting.
    ///
    /// # Errors
    /// [`Unavailable::Timeout`] without an answer to anything for too long, and
    /// [`Unavailable::Blocked`].
    pub(super) async fn wait<T>(
        &mut self,
        request: impl Future<Output = T>,
    ) -> Result<T, Unavailable> {
        tokio::select! {
            biased;
            answer = request => {
                self.progress();
                Ok(answer)
            }
            given_up = self.exhausted() => Err(given_up),
        }
    }

    async fn exhausted(&mut self) -> Unavailable {
        loop {
            let (deadline, blocked) = match &*self.flow.borrow_and_update() {
                Flow::Open(since) => (self.since.max(*since) + self.after, None),
                Flow::Blocked(since, reason) => {
                    (*since + self.blocked_timeout, Some(reason.clone()))
                }
            };
            if Instant::now() >= deadline {
                return match blocked {
                    Some(reason) => Unavailable::Blocked { reason },
                    None => Unavailable::Timeout { step: self.step, after: self.after },
                };
            }
            // Left where it is when it goes off earlier: answers come much more often than deadlines
            // pass, and each move has its price.
            if self.alarm.is_elapsed() || self.alarm.deadline() > deadline {
                self.alarm.as_mut().reset(deadline);
            }
            tokio::select! {
                () = self.alarm.as_mut() => {}
                // No more news: the connection has ended. The requests say so themselves, and which
                // message it was over.
                Ok(()) = self.flow.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{sleep, timeout};

    use super::*;

    const AFTER: Duration = Duration::from_secs(10);
    const BLOCKED: Duration = Duration::from_secs(300);

    fn patience() -> (watch::Sender<Flow>, Patience) {
        let (flow, seen) = watch::channel(Flow::open());
        (flow, Patience::new("publish", AFTER, BLOCKED, seen))
    }

    fn block(flow: &watch::Sender<Flow>) {
        flow.send_replace(Flow::Blocked(Instant::now(), "low on memory".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_of_slow_answers_takes_as_long_as_it_takes() {
        let (_flow, mut patience) = patience();
        for _ in 0..20 {
            patience.wait(sleep(AFTER * 9 / 10)).await.expect("each comes in time");
        }
        let silent = patience.wait(pending::<()>()).await;
        assert!(matches!(silent, Err(Unavailable::Timeout { step: "publish", after: AFTER })));
    }

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_while_the_broker_blocks() {
        let (flow, mut patience) = patience();
        let alarm = async {
            sleep(AFTER / 2).await;
            block(&flow);
            sleep(BLOCKED * 9 / 10).await;
            flow.send_replace(Flow::open());
            sleep(AFTER * 9 / 10).await;
        };
        patience.wait(alarm).await.expect("no deadline passes");
        // The end of an alarm is noticed: silence after it does not have the alarm's own deadline.
        let after = Instant::now();
        block(&flow);
        let (silent, ()) = tokio::join!(patience.wait(pending::<()>()), async {
            sleep(AFTER).await;
            flow.send_replace(Flow::open());
        });
        assert!(matches!(silent, Err(Unavailable::Timeout { .. })), "{silent:?}");
        assert!(after.elapsed() < BLOCKED);
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_that_does_not_end_is_given_up_with_its_reason() {
        let (flow, mut patience) = patience();
        block(&flow);
        let blocked = timeout(BLOCKED * 2, patience.wait(pending::<()>())).await.expect("ends");
        assert!(
            matches!(&blocked, Err(Unavailable::Blocked { reason }) if reason == "low on memory"),
            "{blocked:?}"
        );
    }
}
