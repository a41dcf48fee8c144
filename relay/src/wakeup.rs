//! What a session and the thread that listens for it say to each other.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Longest wait between two reads while commits are not sure to be told, whatever is set.
pub(crate) const UNTOLD: Duration = Duration::from_millis(100);
/// How long no message must have come before a relay falls asleep. While they come more often than that
/// nobody is asked to notify.
pub(crate) const QUIET: Duration = Duration::from_millis(100);
/// For how long a proof that commits are told counts.
const PROOF: Duration = Duration::from_secs(30);

/// The session's end of it. Without a thread at the other end nothing is ever heard.
#[derive(Clone, Default)]
pub(crate) struct Wakeup(Option<Arc<Shared>>);

/// What the session wants of the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It is awake, or there is none.
    Nothing,
    /// It sleeps, or would like to: to be told of commits.
    ToBeTold,
    /// The relay is at its end, and the thread should be.
    End,
}

#[derive(Default)]
pub(crate) struct Shared {
    /// Keeps one call: what is heard while the session reads makes it read once more, as that read may not
    /// have seen what was committed.
    heard: Notify,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    wanted: Wanted,
    /// When it was last certain that commits are told, if they are.
    proved: Option<Instant>,
}

impl Default for State {
    fn default() -> Self {
        Self { wanted: Wanted::Nothing, proved: None }
    }
}

impl Wakeup {
    pub(crate) fn with(shared: Arc<Shared>) -> Self {
        Self(Some(shared))
    }

    /// Returns when there may be something to read: a commit was told, or it has become certain, or uncertain, that
    /// they are. Dropping it in the middle loses nothing.
    pub(crate) async fn heard(&self) {
        match &self.0 {
            Some(shared) => shared.heard.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Nothing has come for a while.
    pub(crate) fn sleep(&self) {
        self.want(Wanted::ToBeTold);
    }

    /// Something has come, or nothing could be read if it came: producers need not tell.
    pub(crate) fn wake(&self) {
        self.want(Wanted::Nothing);
    }

    /// The wait before the next read when `backoff` is the one of a relay that polls, and `idle` the longest
    /// that is set.
    pub(crate) fn wait(&self, backoff: Duration, idle: Duration) -> Duration {
        match &self.0 {
            None => backoff.min(idle),
            Some(_) if self.untold() => backoff.min(idle).min(UNTOLD),
            // There is nothing to look for.
            Some(_) => idle,
        }
    }

    /// Whether a commit could go unnoticed until the next read.
    pub(crate) fn untold(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| {
            shared.lock().proved.is_none_or(|proved| proved.elapsed() >= PROOF)
        })
    }

    fn want(&self, wanted: Wanted) {
        if let Some(shared) = &self.0 {
            shared.want(wanted);
        }
    }
}

impl Shared {
    pub(crate) fn want(&self, wanted: Wanted) {
        let mut state = self.lock();
        if state.wanted != wanted && state.wanted != Wanted::End {
            state.wanted = wanted;
            self.changed.notify_all();
        }
    }

    /// The session is awake and waits for nothing.
    pub(crate) fn untold(&self) {
        self.lock().proved = None;
    }

    /// That commits are told is certain now, or is not any more. The session is called when that changes: it then
    /// reads what was committed in between.
    pub(crate) fn told(&self, certain: bool) {
        let before = std::mem::replace(&mut self.lock().proved, certain.then(Instant::now));
        if before.is_some() != certain {
            self.call();
        }
    }

    /// Has the session read.
    pub(crate) fn call(&self) {
        self.heard.notify_one();
    }

    /// Waits until something else than `known` is wanted, or for as long as `limit`; what is wanted then.
    pub(crate) fn wanted_within(&self, known: Wanted, limit: Duration) -> Wanted {
        let waiting =
            self.changed.wait_timeout_while(self.lock(), limit, |state| state.wanted == known);
        waiting.unwrap_or_else(PoisonError::into_inner).0.wanted
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole whatever a panicking holder was about to do: each field stands alone.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const HOUR: Duration = Duration::from_secs(3600);
    const SOON: Duration = Duration::from_millis(20);

    fn ends() -> (Arc<Shared>, Wakeup) {
        let shared = Arc::<Shared>::default();
        (shared.clone(), Wakeup::with(shared))
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_what_is_certain_calls_the_session_once() {
        let (thread, session) = ends();
        thread.told(true);
        timeout(HOUR, session.heard()).await.expect("reads what was committed before");
        thread.told(true);
        timeout(HOUR, session.heard()).await.expect_err("it is as certain as before");
        thread.told(false);
        timeout(HOUR, session.heard()).await.expect("reads, and polls from now on");
        thread.told(false);
        timeout(HOUR, session.heard()).await.expect_err("nothing is new");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_heard_while_nobody_waits_is_kept() {
        let (thread, session) = ends();
        thread.call();
        thread.call();
        timeout(HOUR, session.heard()).await.expect("kept");
        timeout(HOUR, session.heard()).await.expect_err("one read sees both");
        timeout(HOUR, Wakeup::default().heard()).await.expect_err("there is nobody to call");
    }

    #[test]
    fn a_long_wait_needs_a_recent_proof() {
        let (thread, session) = ends();
        assert_eq!(Wakeup::default().wait(SOON, HOUR), SOON);
        assert_eq!(Wakeup::default().wait(HOUR, HOUR), HOUR, "as is set, where nothing is told");
        assert_eq!((session.wait(SOON, HOUR), session.wait(HOUR, HOUR)), (SOON, UNTOLD));
        thread.told(true);
        assert_eq!(session.wait(SOON, HOUR), HOUR, "there is nothing to look for");
        thread.lock().proved = Instant::now().checked_sub(PROOF);
        assert_eq!(session.wait(HOUR, HOUR), UNTOLD);
        thread.told(true);
        thread.untold();
        assert_eq!(session.wait(HOUR, HOUR), UNTOLD);
    }

    #[test]
    fn the_end_is_the_end() {
        let (thread, session) = ends();
        session.sleep();
        assert_eq!(thread.wanted_within(Wanted::Nothing, HOUR), Wanted::ToBeTold);
        thread.want(Wanted::End);
        session.sleep();
        session.wake();
        assert_eq!(thread.wanted_within(Wanted::Nothing, HOUR), Wanted::End);
    }
}
