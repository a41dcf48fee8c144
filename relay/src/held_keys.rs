use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The ordering keys with a held message: later messages of such a key go behind it.
///
/// A lane adds a key the moment one of its messages is refused, so the next batch on that lane (and
/// a key is always on one lane) already stays behind. Keys are taken out only by loading the set
/// anew while nothing is in flight: a message that was just put behind is not recorded yet, and one
/// read after it must not overtake it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldKeys(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Nearly always there is none; then no lock is taken per message.
    any: AtomicBool,
    keys: Mutex<HashSet<String>>,
}

impl HeldKeys {
    pub(crate) fn replace(&self, keys: Vec<String>) {
        let mut held = self.lock();
        *held = keys.into_iter().collect();
        self.0.any.store(!held.is_empty(), Ordering::Release);
    }

    pub(crate) fn add(&self, key: &str) {
        self.lock().insert(key.to_owned());
        self.0.any.store(true, Ordering::Release);
    }

    pub(crate) fn any(&self) -> bool {
        self.0.any.load(Ordering::Acquire)
    }

    pub(crate) fn contains(&self, key: Option<&str>) -> bool {
        self.any() && key.is_some_and(|key| self.lock().contains(key))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        // The set is whole whatever a panicking holder was about to do.
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
