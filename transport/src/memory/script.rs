use std::sync::Arc;

use message::Message;

use crate::Verdict;

pub(super) type Judge = Arc<dyn Fn(&Message) -> Option<Verdict> + Send + Sync>;

/// Faults still to happen.
#[derive(Default)]
pub(super) struct Script {
    pub(super) judge: Option<Judge>,
    pub(super) redeliver_every: Option<u64>,
    failing: u64,
    losing: u64,
    duplicating: u64,
}

/// What happens to a batch as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchFate {
    /// Taken and confirmed.
    Normal,
    /// Nothing arrives, and the sender learns nothing.
    Fails,
    /// Everything arrives, and the sender learns nothing.
    LosesConfirms,
}

impl Script {
    pub(super) fn fail(&mut self, batches: u64) {
        self.failing += batches;
    }

    pub(super) fn lose(&mut self, batches: u64) {
        self.losing += batches;
    }

    pub(super) fn duplicate(&mut self, messages: u64) {
        self.duplicating += messages;
    }

    pub(super) fn next_batch(&mut self) -> BatchFate {
        if spend(&mut self.failing) {
            BatchFate::Fails
        } else if spend(&mut self.losing) {
            BatchFate::LosesConfirms
        } else {
            BatchFate::Normal
        }
    }

    /// How many copies of the next message arrive.
    pub(super) fn copies(&mut self) -> usize {
        if spend(&mut self.duplicating) { 2 } else { 1 }
    }
}

fn spend(budget: &mut u64) -> bool {
    let some = *budget > 0;
    *budget = budget.saturating_sub(1);
    some
}
