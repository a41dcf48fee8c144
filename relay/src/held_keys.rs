use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The ordering keys with a held message: later messages of such a key go behind it.
///
/// A lane adds a key the moment one of its messages is refused, so the next window on that lane (and
/// a key is always on one lane) already stays behind. With each key goes the number of its messages
/// that are to be held and are not recorded yet: a key is only given free when there are none, or a
/// message read after them would overtake them.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldKeys(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Nearly always there is none; then no lock is taken per message.
    any: AtomicBool,
    unrecorded: Mutex<HashMap<String, usize>>,
}

impl HeldKeys {
    /// A message of the key is to be held.
    pub(crate) fn add(&self, key: &str) {
        let mut keys = self.lock();
        match keys.get_mut(key) {
            Some(unrecorded) => *unrecorded += 1,
            None => drop(keys.insert(key.to_owned(), 1)),
        }
        self.0.any.store(true, Ordering::Release);
    }

    /// Messages of these keys that were added are recorded now; a key is named once for each.
    pub(crate) fn recorded(&self, of_keys: &[String]) {
        let mut keys = self.lock();
        for key in of_keys {
            if let Some(unrecorded) = keys.get_mut(key) {
                *unrecorded = unrecorded.saturating_sub(1);
            }
        }
    }

    /// Nothing of these keys is recorded as held any more.
    pub(crate) fn free(&self, freed: &[String]) {
        let mut keys = self.lock();
        for key in freed {
            if keys.get(key) == Some(&0) {
                keys.remove(key);
            }
        }
        self.0.any.store(!keys.is_empty(), Ordering::Release);
    }

    /// These, and no others, are recorded as held.
    pub(crate) fn replace(&self, recorded: Vec<String>) {
        let mut keys = self.lock();
        keys.retain(|_, unrecorded| *unrecorded > 0);
        for key in recorded {
            keys.entry(key).or_insert(0);
        }
        self.0.any.store(!keys.is_empty(), Ordering::Release);
    }

    pub(crate) fn any(&self) -> bool {
        self.0.any.load(Ordering::Acquire)
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.any() && self.lock().contains_key(key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        // The map is whole whatever a panicking holder was about to do.
        self.0.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_free_only_when_nothing_of_it_is_left_to_be_recorded() {
        let held = HeldKeys::default();
        held.add("k");
        held.add("k");
        held.recorded(&["k".to_owned()]);
        held.free(&["k".to_owned()]);
        held.replace(Vec::new());
        assert!(held.contains("k"), "one is on its way");
        held.recorded(&["k".to_owned()]);
        assert!(held.contains("k"));
        held.free(&["k".to_owned()]);
        assert!(!held.contains("k") && !held.any());
    }
}
