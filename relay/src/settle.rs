use std::time::SystemTime;

use outbox::reader::{Entry, Hold, HoldReason, HoldResult};
use transport::{Refusal, Verdict};

use crate::lanes::{Fate, Published};
use crate::settings::Settings;
use crate::telemetry::Counters;

/// Rows that cannot be published now, by what they are: delayed or not a message at all.
pub(crate) fn unpublishable(entry: &Entry) -> Option<Hold> {
    let (reason, result) = match &entry.defect {
        Some(defect) => {
            (HoldReason::Poison, HoldResult::Dead { attempts: 0, error: defect.clone() })
        }
        None if entry.delayed => (HoldReason::Delayed, HoldResult::UntilDue),
        None => return None,
    };
    Some(Hold { seq: entry.seq, ordering_key: entry.message.ordering_key.clone(), reason, result })
}

/// What is to be held of a settled batch, where `attempts` tells how often each was tried before.
pub(crate) fn holds_of(
    settings: &Settings,
    counters: &Counters,
    published: Vec<Published>,
    attempts: impl Fn(i64) -> u32,
) -> (Vec<i64>, Vec<Hold>) {
    let mut confirmed = Vec::with_capacity(published.len());
    let mut holds = Vec::new();
    let now = SystemTime::now();
    for Published { seq, message, fate } in published {
        let verdict = match fate {
            Fate::Confirmed => {
                counters.confirmed(now.duration_since(message.created_at).unwrap_or_default());
                confirmed.push(seq);
                continue;
            }
            Fate::Behind => {
                let (reason, result) = (HoldReason::Behind, HoldResult::UntilFirst);
                holds.push(Hold { seq, ordering_key: message.ordering_key, reason, result });
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
        holds.push(Hold { seq, ordering_key: message.ordering_key, reason, result });
    }
    (confirmed, holds)
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
