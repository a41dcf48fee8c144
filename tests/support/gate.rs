//! A place in a handler where a test can hold it.

use std::sync::{Arc, Condvar, Mutex};

use tokio::sync::Notify;

use crate::PATIENCE;

/// Closed at first. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    open: Mutex<bool>,
    opened: Condvar,
    entered: Notify,
    opened_async: Notify,
}

impl Gate {
    /// Says that somebody has come, and waits until the gate is open. Blocks its thread.
    pub fn pass(&self) {
        self.inner.entered.notify_one();
        let open = self.inner.open.lock().expect("no panic");
        let (_open, late) = self
            .inner
            .opened
            .wait_timeout_while(open, PATIENCE / 2, |open| !*open)
            .expect("no panic");
        assert!(!late.timed_out(), "the gate was never opened");
    }

    /// The same without blocking.
    pub async fn passed(&self) {
        self.inner.entered.notify_one();
        let opened = self.inner.opened_async.notified();
        if !*self.inner.open.lock().expect("no panic") {
            opened.await;
        }
    }

    /// Returns when somebody has come.
    pub async fn entered(&self) {
        self.inner.entered.notified().await;
    }

    /// Opens it for good.
    pub fn open(&self) {
        *self.inner.open.lock().expect("no panic") = true;
        self.inner.opened.notify_all();
        self.inner.opened_async.notify_waiters();
    }
}
