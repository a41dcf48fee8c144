use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const RUNNING: u8 = 0;
const ABANDONED: u8 = 1;
const ENDED: u8 = 2;

/// How many calls nobody waits for any more still have, or are about to get, a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Abandoned(Arc<AtomicUsize>);

/// Held by who waits for a call: dropped before the call has ended, it counts as abandoned.
pub(crate) struct Waiting(Arc<Call>);

/// Held by the call: dropped when it has ended, or was never run.
pub(crate) struct Running(Arc<Call>);

struct Call {
    state: AtomicU8,
    abandoned: Abandoned,
}

impl Abandoned {
    pub(crate) fn call(&self) -> (Waiting, Running) {
        let call = Arc::new(Call { state: AtomicU8::new(RUNNING), abandoned: self.clone() });
        (Waiting(Arc::clone(&call)), Running(call))
    }

    /// Whether the two count together.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

impl Running {
    /// Whether nobody waits for it any more.
    pub(crate) fn is_left(&self) -> bool {
        self.0.state.load(Ordering::SeqCst) == ABANDONED
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let left =
            self.0.state.compare_exchange(RUNNING, ABANDONED, Ordering::SeqCst, Ordering::SeqCst);
        if left.is_ok() {
            self.0.abandoned.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.state.swap(ENDED, Ordering::SeqCst) == ABANDONED {
            self.0.abandoned.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_from_when_it_is_left_until_it_ends() {
        let abandoned = Abandoned::default();
        let (waiting, running) = abandoned.call();
        drop(running);
        drop(waiting);
        assert!(!abandoned.any(), "it ended while it was waited for");
        let (waiting, running) = abandoned.call();
        assert!(!running.is_left());
        drop(waiting);
        assert!(running.is_left() && abandoned.any());
        drop(running);
        assert!(!abandoned.any());
    }
}
