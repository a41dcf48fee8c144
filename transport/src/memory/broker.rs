use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use message::Message;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::lane::MemoryLane;
use super::state::{State, lost};
use super::subscription::MemorySubscription;
use crate::check::Way;
use crate::{Health, Lane, Publisher, Subscriber, Subscription, Unavailable, Verdict};

/// An in-process broker. Clones are handles on the same one.
#[derive(Clone)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
    publish_timeout: Duration,
    blocked_timeout: Duration,
    window: usize,
}

struct Shared {
    state: Mutex<State>,
    /// Told when the broker disconnects, unblocks or resumes.
    changed: Notify,
}

impl MemoryBroker {
    /// A broker with no queues and the exchanges `amq.direct`, `amq.fanout` and `amq.topic`.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared { state: Mutex::new(State::new()), changed: Notify::new() };
        Self {
            shared: Arc::new(shared),
            publish_timeout: Duration::from_secs(10),
            blocked_timeout: Duration::from_secs(300),
            window: 1_000,
        }
    }

    /// Sets how long [`Lane::publish`] waits on a paused broker. Default 10 s. Counts for this handle
    /// and the lanes it opens.
    #[must_use]
    pub fn with_publish_timeout(mut self, timeout: Duration) -> Self {
        self.publish_timeout = timeout;
        self
    }

    /// Sets how long [`Lane::publish`] waits on a blocked broker. Default 5 minutes. Counts for this
    /// handle and the lanes it opens.
    #[must_use]
    pub fn with_blocked_timeout(mut self, timeout: Duration) -> Self {
        self.blocked_timeout = timeout;
        self
    }

    /// Sets what [`Publisher::window`] tells callers, at least 1. Default 1,000. The broker itself
    /// takes a batch of any size in one step.
    #[must_use]
    pub fn with_window(mut self, window: usize) -> Self {
        self.window = window.max(1);
        self
    }

    /// Decides by hand: where `judge` returns a verdict the message ends with it and reaches no
    /// queue, also with `Confirmed` (a broker that lost it). Replaces an earlier script.
    pub fn script(&self, judge: impl Fn(&Message) -> Option<Verdict> + Send + Sync + 'static) {
        self.state().script.judge = Some(Arc::new(judge));
    }

    /// Ends [`script`](Self::script).
    pub fn clear_script(&self) {
        self.state().script.judge = None;
    }

    /// The next `batches` calls of [`Lane::publish`] fail with nothing enqueued, and their lanes with
    /// them.
    pub fn fail_next_publishes(&self, batches: u64) {
        self.state().script.fail(batches);
    }

    /// The next `batches` calls of [`Lane::publish`] enqueue everything and fail all the same, and
    /// their lanes with them: the sender has to repeat what has arrived.
    pub fn lose_confirms(&self, batches: u64) {
        self.state().script.lose(batches);
    }

    /// The next `messages` messages arrive twice.
    pub fn duplicate_next(&self, messages: u64) {
        self.state().script.duplicate(messages);
    }

    /// Delivers every `n`th acknowledged message of a queue once more, marked redelivered, as if the
    /// acknowledgement had been lost. 0 ends it.
    pub fn redeliver_every(&self, n: u64) {
        self.state().script.redeliver_every = (n > 0).then_some(n);
    }

    /// Ends every lane and subscription with [`Unavailable::Lost`], and refuses new ones until
    /// [`reconnect`](Self::reconnect). What was unacknowledged goes back to its queue.
    pub fn disconnect(&self) {
        self.state().disconnect();
        self.shared.changed.notify_waiters();
    }

    /// Ends [`disconnect`](Self::disconnect). Lanes and subscriptions have to be opened anew.
    pub fn reconnect(&self) {
        self.state().connected = true;
    }

    /// Takes nothing more, as under a memory or disk alarm: publishing waits, then fails with
    /// [`Unavailable::Blocked`]; consuming goes on.
    pub fn block(&self, reason: &str) {
        self.state().blocked = Some(reason.to_owned());
        self.shared.changed.notify_waiters();
    }

    /// Ends [`block`](Self::block).
    pub fn unblock(&self) {
        self.state().blocked = None;
        self.shared.changed.notify_waiters();
    }

    /// Falls silent: publishing waits for its confirms, then fails with [`Unavailable::Timeout`],
    /// and nothing says why; consuming goes on.
    pub fn pause(&self) {
        self.state().paused = true;
    }

    /// Ends [`pause`](Self::pause).
    pub fn resume(&self) {
        self.state().paused = false;
        self.shared.changed.notify_waiters();
    }

    /// Keeps every message that was taken from now on, for [`published`](Self::published). Off at
    /// first, because it grows without bound.
    pub fn record_published(&self) {
        self.state().log.get_or_insert_default();
    }

    /// What was taken since [`record_published`](Self::record_published), in order, repeats included.
    #[must_use]
    pub fn published(&self) -> Vec<Message> {
        self.state().log.iter().flatten().map(|message| Message::clone(message)).collect()
    }

    /// How many messages are ready in a queue; 0 where there is no such queue.
    #[must_use]
    pub fn depth(&self, queue: &str) -> usize {
        self.state().queue(queue).map_or(0, |queue| queue.ready())
    }

    /// How many messages of a queue are delivered and unanswered; 0 where there is no such queue.
    #[must_use]
    pub fn unacked(&self, queue: &str) -> usize {
        self.state().queue(queue).map_or(0, |queue| queue.unacked())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lane(&self, way: Way) -> Result<Box<dyn Lane>, Unavailable> {
        let session = {
            let state = self.state();
            state.check_connected()?;
            state.session
        };
        Ok(Box::new(MemoryLane::new(self.clone(), session, way)))
    }

    /// Waits while the broker is blocked or paused, each as long as its timeout says.
    pub(super) async fn pass_gate(&self, session: u64) -> Result<(), Unavailable> {
        let mut waiting: Option<(bool, Instant)> = None;
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, or a change in between would never wake us.
            changed.as_mut().enable();
            let blocked = {
                let state = self.state();
                state.check_session(session)?;
                if state.blocked.is_none() && !state.paused {
                    return Ok(());
                }
                state.blocked.clone()
            };
            // Of the present trouble: an alarm does not count as silence.
            let since = match waiting {
                Some((was_blocked, since)) if was_blocked == blocked.is_some() => since,
                Some(_) | None => Instant::now(),
            };
            waiting = Some((blocked.is_some(), since));
            let after = if blocked.is_some() { self.blocked_timeout } else { self.publish_timeout };
            if timeout_at(since + after, changed).await.is_err() {
                return Err(match blocked {
                    Some(reason) => Unavailable::Blocked { reason },
                    None => Unavailable::Timeout { step: "publish", after },
                });
            }
        }
    }
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}

#[async_trait]
impl Publisher for MemoryBroker {
    async fn open_lane(&self) -> Result<Box<dyn Lane>, Unavailable> {
        self.lane(Way::Exchange)
    }

    async fn open_lane_to(&self, queue: &str) -> Result<Box<dyn Lane>, Unavailable> {
        self.lane(Way::Queue(queue.to_owned()))
    }

    async fn open_reply_lane(&self) -> Result<Box<dyn Lane>, Unavailable> {
        self.lane(Way::Queues)
    }

    fn health(&self) -> Health {
        let state = self.state();
        match &state.blocked {
            _ if !state.connected => Health::Disconnected,
            Some(reason) => Health::Blocked { reason: reason.clone() },
            None => Health::Connected,
        }
    }

    fn heartbeat(&self) -> Option<Duration> {
        None
    }

    fn publish_timeout(&self) -> Duration {
        self.publish_timeout
    }

    fn window(&self) -> usize {
        self.window
    }

    async fn close(&self) {}
}

#[async_trait]
impl Subscriber for MemoryBroker {
    async fn subscribe(
        &self,
        queue: &str,
        prefetch: u16,
    ) -> Result<Box<dyn Subscription>, Unavailable> {
        let mut state = self.state();
        state.check_connected()?;
        let consumer = state.next_id();
        let session = state.session;
        let id = state.names.get(queue).copied();
        let Some((id, found)) = id.and_then(|id| Some((id, state.queues.get_mut(&id)?))) else {
            return Err(Unavailable::NoQueue {
                queue: queue.to_owned(),
                reason: format!("NOT_FOUND - no queue '{queue}' in memory"),
            });
        };
        found.add_consumer(consumer, prefetch);
        let arrived = Arc::clone(&found.arrived);
        drop(state);
        Ok(Box::new(MemorySubscription::new(self.clone(), queue, id, consumer, session, arrived)))
    }

    async fn close(&self) {}
}

pub(super) fn ended(broker: &MemoryBroker, session: u64) -> Unavailable {
    match broker.state().check_session(session) {
        Err(unavailable) => unavailable,
        Ok(()) => lost("the delivery's subscription has ended"),
    }
}
