use std::time::SystemTime;

use outbox::reader::{Entry, Hold, HoldReason, HoldResult};
use transport::{Refusal, Verdict};

use crate::lanes::{Fate, Published};
use crate::settings::{DeadKey, Settings};
use crate::telemetry::Counters;

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The broker has these.
    pub(crate) confirmed: Vec<i64>,
    /// To be held.
    pub(crate) holds: Vec<Hold>,
    /// The ordering keys given to [`HeldKeys::add`](crate::held_keys::HeldKeys::add) on the way, each as
    /// often as it was.
    pub(crate) keys: Vec<String>,
    /// How many the broker refused.
    pub(crate) refused: u64,
}

/// Rows that cannot be published now, by what they are: delayed or not a message at all.
pub(crate) fn unpublishable(entry: &Entry, settings: &Settings) -> Option<Hold> {
    let (reason, result) = match &entry.defect {
        Some(defect) => {
            (HoldReason::Poison, HoldResult::Dead { attempts: 0, error: defect.clone() })
        }
        None if entry.delayed => (HoldReason::Delayed, HoldResult::UntilDue),
        None => return None,
    };
    let key = entry.message.ordering_key.clone();
    Some(Hold { seq: entry.seq, ordering_key: blocking(key, &result, settings), reason, result })
}

/// What is to be held of a settled batch, where `attempts` tells how often each was tried before.
pub(crate) fn outcome(
    settings: &Settings,
    counters: &Counters,
    published: Vec<Published>,
    attempts: impl Fn(i64) -> u32,
) -> Batch {
    let mut batch = Batch { confirmed: Vec::with_capacity(published.len()), ..Batch::default() };
    let now = SystemTime::now();
    for Published { seq, created_at, key, fate } in published {
        let verdict = match fate {
            Fate::Confirmed => {
                counters.confirmed(now.duration_since(created_at).unwrap_or_default());
                batch.confirmed.push(seq);
                continue;
            }
            Fate::Behind => {
                batch.keys.extend(key.clone());
                let (reason, result) = (HoldReason::Behind, HoldResult::UntilFirst);
                batch.holds.push(Hold { seq, ordering_key: key, reason, result });
                continue;
            }
            Fate::Not(verdict) => verdict,
        };
        let tried = attempts(seq).saturating_add(1);
        let (reason, error, hopeless) = match verdict {
            // A lane never reports a confirmed message this way.
            Verdict::Confirmed => continue,
            Verdict::Refused(refusal) => (reason_of(&refusal), refusal.to_string(), false),
            Verdict::Poison(poison) => (HoldReason::Poison, poison.to_string(), true),
        };
        let result = if hopeless || tried >= settings.max_attempts {
            HoldResult::Dead { attempts: tried, error }
        } else {
            let after = settings.hold_backoff.jittered(tried);
            HoldResult::Again { attempts: tried, after, error }
        };
        batch.refused += 1;
        batch.keys.extend(key.clone());
        let ordering_key = blocking(key, &result, settings);
        batch.holds.push(Hold { seq, ordering_key, reason, result });
    }
    batch
}

/// The key that others wait behind: none where a dead message is to be passed by.
fn blocking(key: Option<String>, result: &HoldResult, settings: &Settings) -> Option<String> {
    match (settings.dead_key, result) {
        (DeadKey::Skip, HoldResult::Dead { .. }) => None,
        (DeadKey::Skip | DeadKey::Block, _) => key,
    }
}

const fn reason_of(refusal: &Refusal) -> HoldReason {
    match refusal {
        Refusal::Unroutable { .. } => HoldReason::Unroutable,
        Refusal::Nacked => HoldReason::Nacked,
        Refusal::ExchangeMissing { .. } => HoldReason::ExchangeMissing,
        Refusal::AccessRefused { .. } => HoldReason::AccessRefused,
        Refusal::Other { .. } => HoldReason::Refused,
    }
}
