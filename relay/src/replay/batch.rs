use message::{Message, name};
use outbox::reader::Entry;
use outbox::replay::ReplayJob;
use transport::{Refusal, Verdict};

/// How far a batch got.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Messages from the front that are settled.
    pub(super) count: usize,
    /// Of these, the ones that have arrived.
    pub(super) sent: u64,
    /// Of these, the ones that no broker takes.
    pub(super) unsendable: u64,
    /// Why the next one is not.
    pub(super) refusal: Option<Refusal>,
}

/// A message as a replay sends it. Marks that a producer wrote are taken off: only an operator's order
/// lets side effects run.
pub(super) fn marked(job: &ReplayJob, message: &Message) -> Message {
    let theirs = message.headers.iter();
    let mut headers: message::Headers = theirs
        .filter(|(header, _)| *header != name::REPLAY && *header != name::REPLAY_FORCED)
        .map(|(header, value)| (header.to_owned(), value.to_owned()))
        .collect();
    headers.insert(name::REPLAY, job.id.to_string());
    if job.forced {
        headers.insert(name::REPLAY_FORCED, job.consumer.clone());
    }
    Message { headers, ..message.clone() }
}

/// What the verdicts say of the front of a batch. Behind the first refusal nothing counts, whatever its
/// verdict: it is sent again together with what was refused, so that a key keeps its order.
pub(super) fn settled(job: &ReplayJob, entries: &[Entry], verdicts: Vec<Verdict>) -> Settled {
    let mut settled = Settled::default();
    let mut verdicts = verdicts.into_iter();
    for entry in entries {
        let verdict = match &entry.defect {
            // It was not sent.
            Some(defect) => {
                pass_over(job, entry, defect);
                settled.unsendable += 1;
                settled.count += 1;
                continue;
            }
            None => verdicts.next(),
        };
        match verdict {
            Some(Verdict::Confirmed) => settled.sent += 1,
            Some(Verdict::Poison(poison)) => {
                pass_over(job, entry, &poison);
                settled.unsendable += 1;
            }
            Some(Verdict::Refused(refusal)) => {
                settled.refusal = Some(refusal);
                return settled;
            }
            // A lane gives one for each.
            None => return settled,
        }
        settled.count += 1;
    }
    settled
}

fn pass_over(job: &ReplayJob, entry: &Entry, why: &dyn std::fmt::Display) {
    let id = entry.message.id;
    tracing::warn!(replay = job.id, seq = entry.seq, %id, %why, "no broker takes this row; passed over");
}
