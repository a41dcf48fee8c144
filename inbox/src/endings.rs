use std::collections::BTreeMap;
use std::fmt;

use crate::Ending;

/// How often each ending occurred during [`Inbox::run_until_idle`](crate::Inbox::run_until_idle). A message
/// that was parked and retried has one for each time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endings(BTreeMap<Ending, u64>);

impl Endings {
    /// How often this one did.
    #[must_use]
    pub fn of(&self, ending: Ending) -> u64 {
        self.0.get(&ending).copied().unwrap_or(0)
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub(crate) fn count(&mut self, ending: Ending) {
        *self.0.entry(ending).or_default() += 1;
    }
}

impl fmt::Display for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (at, (ending, count)) in self.0.iter().enumerate() {
            write!(f, "{}{count} {ending}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
