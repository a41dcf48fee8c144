use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use transport::Unavailable;

use crate::builder::InboxConnection;
use crate::ending::{End, Ended, Ending, Reason};
use crate::engine::{Engine, Patience};
use crate::reply::{self, Replied, outcome, reply_to};
use crate::unit::{Reply, Task};

impl<C: InboxConnection> Engine<C> {
    /// Whether somebody is to be told how it ended.
    pub(crate) fn wants_reply(&self, task: &Task<C>) -> bool {
        self.replies.is_some() && reply_to(&task.incoming).is_some()
    }

    /// Tells whoever waits for it how a command ended, before the broker may forget the command: whoever dies
    /// in between leaves it to be delivered again, and to be answered again. Another ending where that cannot
    /// be done now.
    pub(crate) async fn reply(
        &self,
        task: &Task<C>,
        end: &End,
        lost: Option<&CancellationToken>,
    ) -> Option<Ending> {
        let (Some(replies), Some(queue)) = (&self.replies, reply_to(&task.incoming)) else {
            return None;
        };
        // A run that was rolled back has left its result, too: it is nobody's.
        let kept = matches!(end.ending, Ending::Applied | Ending::Duplicate | Ending::Stale);
        let result = task.take_result().filter(|_| kept);
        let outcome = outcome(end.ending, result.is_some(), end.again)?;
        let operation = task.if_decoded().map(|job| job.operation.id());
        let mut reply = reply::reply(&task.incoming, queue, operation, outcome, result.as_deref());
        let mut patience = Patience::default();
        let mut told_short = false;
        loop {
            let error = match replies.send(reply.clone()).await {
                Ok(Replied::Unsendable) if result.is_some() && !told_short => {
                    self.replied(task, Replied::Unsendable, queue);
                    (reply, told_short) = (reply::without_result(&reply), true);
                    continue;
                }
                Ok(replied) => {
                    self.replied(task, replied, queue);
                    return None;
                }
                Err(error) => error,
            };
            let Some(lost) = lost else {
                // A retried one is the broker's no more: its sender, who asks again, is told.
                self.replied(task, Replied::Lost, queue);
                return None;
            };
            if lost.is_cancelled() {
                return Some(Ending::Unsettled);
            }
            let reason = format!("cannot reply: {error}");
            if let Some(ending) = self.wait(task, &mut patience, &reason).await {
                return Some(ending);
            }
        }
    }

    fn replied(&self, task: &Task<C>, replied: Replied, queue: &str) {
        self.telemetry.replied(replied);
        let (consumer, message_id) = (&self.consumer, task.message_id());
        match replied {
            Replied::Sent => {}
            Replied::Refused | Replied::Lost => {
                tracing::debug!(
                    consumer,
                    message_id,
                    queue,
                    outcome = replied.as_str(),
                    "a reply did not arrive"
                );
            }
            Replied::Unsendable => {
                tracing::warn!(
                    consumer,
                    message_id,
                    queue,
                    "a reply is larger than the broker carries"
                );
            }
            Replied::NotAllowed => {
                tracing::warn!(
                    consumer,
                    message_id,
                    queue,
                    "a command names a queue that may not be answered"
                );
            }
        }
    }

    /// Answers the broker; whether it took the answer.
    pub(crate) async fn answer(&self, reply: Reply, ending: Ending) -> bool {
        let Reply { acker, ticket, lost } = reply;
        let answered = match ending {
            // Given back alone it would come again after what came after it. With its subscription all goes
            // back, in place.
            Ending::Unsettled if self.settings.ordered => {
                lost.cancel();
                return false;
            }
            Ending::Unsettled => acker.requeue().await,
            // Unanswered, it goes back with the subscription: in order with what was not begun.
            Ending::Released => return true,
            Ending::Applied
            | Ending::Stale
            | Ending::Duplicate
            | Ending::Parked(_)
            | Ending::Overtaken => acker.ack().await,
        };
        ticket.answered();
        self.taken(&answered)
    }

    /// Whether the broker took an answer; counted where it did not.
    pub(crate) fn taken(&self, answered: &Result<(), Unavailable>) -> bool {
        if let Err(error) = answered {
            self.telemetry.answers_lost.increment(1);
            tracing::debug!(consumer = self.consumer, reason = %error, "the answer was lost");
        }
        answered.is_ok()
    }

    /// Counts an ending and tells the observer.
    pub(crate) fn tell(&self, task: &Task<C>, end: End, answered: bool, received: Instant) {
        let retried = task.lease.is_some();
        self.telemetry.ended(end, retried, received.elapsed());
        self.watch.ended(end.ending, end.duplicate);
        self.warn_beyond_window(&task.incoming, end.ending);
        let Some(observer) = &self.observer else { return };
        let ended = Ended {
            message_id: task.incoming.message_id.as_deref(),
            kind: task.incoming.kind.as_deref(),
            operation: task.if_decoded().map(|job| &job.operation),
            ending: end.ending,
            duplicate: end.duplicate,
            attempts: end.attempts,
            retried,
            answered,
        };
        // The user's code: what is in work beside this message must not go with it.
        if catch_unwind(AssertUnwindSafe(|| observer(&ended))).is_err() {
            self.telemetry.panics.increment(1);
            tracing::error!(consumer = self.consumer, "an observer panicked");
        }
    }

    /// Says that a message was parked.
    pub(crate) fn parked(&self, task: &Task<C>, reason: Reason, id: i64) {
        let message_id = task.message_id();
        match reason {
            // The usual course of things; what it comes to is said then.
            Reason::Failed | Reason::Early | Reason::Behind => {
                tracing::debug!(consumer = self.consumer, parked = id, %reason, message_id, "parked a message");
            }
            _ => {
                tracing::warn!(consumer = self.consumer, parked = id, %reason, message_id, "parked a message");
            }
        }
    }
}
