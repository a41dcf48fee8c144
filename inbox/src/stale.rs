use std::sync::atomic::{AtomicBool, Ordering};

use crate::OperationVerdict;

/// Whether a handler has found its event out of date.
#[derive(Debug, Default)]
pub(crate) struct Stale(AtomicBool);

impl Stale {
    pub(crate) fn set(&self, stale: bool) {
        self.0.store(stale, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn verdict(&self) -> OperationVerdict {
        if self.get() { OperationVerdict::Stale } else { OperationVerdict::Applied }
    }
}
