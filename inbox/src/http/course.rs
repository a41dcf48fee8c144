use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::RequestEnding;
use super::backend::HttpConnection;
use super::front::Shared;

/// How far a request has come, so that it is counted once whoever answers it: the server drops what it does for a
/// client that has gone.
pub(super) struct Course<C: HttpConnection> {
    shared: Arc<Shared<C>>,
    /// What it has come to if it is dropped now; `None` where it is counted.
    dropped: Mutex<Option<RequestEnding>>,
    reached: AtomicBool,
}

impl<C: HttpConnection> Course<C> {
    pub(super) fn new(shared: Arc<Shared<C>>) -> Self {
        let dropped = Mutex::new(Some(RequestEnding::Gone));
        Self { shared, dropped, reached: AtomicBool::new(false) }
    }

    /// The application's handler has it, and may answer by itself.
    pub(super) fn hand_over(&self) {
        self.set(Some(RequestEnding::Refused));
    }

    /// It is ours again; whether something may have been done outside meanwhile.
    pub(super) fn take_back(&self) -> bool {
        self.set(Some(RequestEnding::Gone));
        self.reached.load(Ordering::Relaxed)
    }

    /// The handler has what it needs to do something outside.
    pub(super) fn reach(&self) {
        self.reached.store(true, Ordering::Relaxed);
    }

    /// It was counted elsewhere.
    pub(super) fn close(&self) {
        self.set(None);
    }

    pub(super) fn end(&self, ending: RequestEnding) {
        self.close();
        self.shared.end(ending);
    }

    fn set(&self, dropped: Option<RequestEnding>) {
        *self.dropped.lock().unwrap_or_else(PoisonError::into_inner) = dropped;
    }
}

impl<C: HttpConnection> Drop for Course<C> {
    fn drop(&mut self) {
        let dropped = self.dropped.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(ending) = dropped.take() {
            self.shared.end(ending);
        }
    }
}
