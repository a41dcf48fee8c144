use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::RequestEnding;
use super::backend::HttpConnection;
use super::front::Shared;

/// What a request has come to before its transaction. One whose handler answers without it is counted all the
/// same, when it is dropped.
pub(super) struct Course<C: HttpConnection> {
    shared: Arc<Shared<C>>,
    open: AtomicBool,
    reached: AtomicBool,
}

impl<C: HttpConnection> Course<C> {
    pub(super) fn new(shared: Arc<Shared<C>>) -> Self {
        Self { shared, open: AtomicBool::new(true), reached: AtomicBool::new(false) }
    }

    /// The handler has what it needs to do something outside.
    pub(super) fn reach(&self) {
        self.reached.store(true, Ordering::Relaxed);
    }

    /// Somebody else counts it; whether something may have been done outside.
    pub(super) fn end(&self) -> bool {
        self.open.store(false, Ordering::Relaxed);
        self.reached.load(Ordering::Relaxed)
    }
}

impl<C: HttpConnection> Drop for Course<C> {
    fn drop(&mut self) {
        if *self.open.get_mut() {
            self.shared.end(RequestEnding::Refused);
        }
    }
}
