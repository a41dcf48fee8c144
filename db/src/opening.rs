use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longest that the end of a pool waits for a connection that is being opened. What takes longer waits for the network,
/// where it does no harm.
const PATIENCE: Duration = Duration::from_secs(1);

/// The connections of a pool that are being opened.
///
/// r2d2 opens them on threads of its own, which nobody joins. libpq computes with OpenSSL meanwhile, and OpenSSL cleans up
/// when the process ends: a thread that is inside of it then crashes a process that has done its work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    under_way: usize,
}

impl Opening {
    /// `None` once the pool has ended: r2d2 may have decided to open another one just before.
    pub(crate) fn begin(&self) -> Option<UnderWay<'_>> {
        let mut state = self.0.lock();
        if state.closed {
            return None;
        }
        state.under_way += 1;
        Some(UnderWay(&self.0))
    }

    fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        drop(self.0.ended.wait_timeout_while(state, PATIENCE, |state| state.under_way > 0));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them.
pub(crate) struct UnderWay<'a>(&'a Shared);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
        self.0.ended.notify_all();
    }
}

/// Held by everybody who can ask for a connection: the last one waits until none is being opened any more.
#[derive(Debug, Default)]
pub(crate) struct LastOut(pub(crate) Opening);

impl Drop for LastOut {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_last_one_waits_and_nothing_begins_behind_it() {
        let last = LastOut::default();
        let opening = last.0.clone();
        let (begun, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel::<()>();
        let worker = std::thread::spawn({
            let opening = opening.clone();
            move || {
                let under_way = opening.begin();
                begun.send(under_way.is_some()).expect("is waited for");
                may_end.recv().expect("is told");
                drop(under_way);
            }
        });
        assert!(has_begun.recv().expect("begins"));
        let closing = std::thread::spawn(move || drop(last));
        while !opening.0.lock().closed {
            std::thread::yield_now();
        }
        assert!(opening.begin().is_none());
        end.send(()).expect("is waited for");
        closing.join().expect("no panic");
        assert_eq!(opening.0.lock().under_way, 0);
        worker.join().expect("no panic");
    }
}
