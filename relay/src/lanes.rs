use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use message::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use transport::{Lane, Publisher, Unavailable, Verdict};

use crate::deadline::LeaseDeadline;
use crate::held_keys::HeldKeys;

/// The tasks that publish. Dropping them stops all at once; what they had in flight is repeated.
pub(crate) struct Lanes {
    jobs: Vec<mpsc::UnboundedSender<Job>>,
    next_keyless: usize,
    _tasks: JoinSet<()>,
}

/// How one message fared on a lane.
#[derive(Debug)]
pub(crate) enum Fate {
    /// The broker has it.
    Confirmed,
    /// Not published: an earlier message of its key is held.
    Behind,
    /// The broker's verdict was another.
    Not(Verdict),
}

/// A message with its place in the log, and how it fared.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) seq: i64,
    pub(crate) message: Message,
    pub(crate) fate: Fate,
}

/// Why a lane gave up. The whole job's outcome is unknown.
#[derive(Debug)]
pub(crate) enum LaneEnd {
    Unavailable(Unavailable),
    /// The lease may have ended; nothing more was published.
    LeaseExpired,
}

type Reply = Result<Vec<Published>, LaneEnd>;

struct Job {
    seqs: Vec<i64>,
    messages: Vec<Message>,
    /// Whether these are held messages tried again, which must not be put behind themselves.
    held: bool,
    reply: oneshot::Sender<Reply>,
}

impl Lanes {
    /// Opens the lanes.
    pub(crate) async fn open(
        publisher: &Arc<dyn Publisher>,
        count: usize,
        deadline: &LeaseDeadline,
        held_keys: &HeldKeys,
    ) -> Result<Self, Unavailable> {
        let mut jobs = Vec::with_capacity(count);
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let lane = publisher.open_lane().await?;
            // Unbounded, because the session bounds what is in flight by rows and bytes.
            let (sender, receiver) = mpsc::unbounded_channel();
            tasks.spawn(work(lane, receiver, deadline.clone(), held_keys.clone()));
            jobs.push(sender);
        }
        Ok(Self { jobs, next_keyless: 0, _tasks: tasks })
    }

    /// Splits messages over the lanes, one key always to the same, and returns what to wait for.
    pub(crate) fn dispatch(&mut self, messages: Vec<(i64, Message)>, held: bool) -> Dispatched {
        let count = self.jobs.len();
        let share = messages.len() / count + 1;
        let mut split: Vec<(Vec<i64>, Vec<Message>)> =
            (0..count).map(|_| (Vec::with_capacity(share), Vec::with_capacity(share))).collect();
        for (seq, message) in messages {
            let lane = self.lane_of(message.ordering_key.as_deref());
            split[lane].0.push(seq);
            split[lane].1.push(message);
        }
        let mut replies = Vec::with_capacity(count);
        for (jobs, (seqs, messages)) in self.jobs.iter().zip(split) {
            if !messages.is_empty() {
                let (reply, receiver) = oneshot::channel();
                // A lane that has ended dropped its receiver, and the reply's sender with the job:
                // whoever waits learns it there.
                let _ = jobs.send(Job { seqs, messages, held, reply });
                replies.push(receiver);
            }
        }
        Dispatched(replies)
    }

    fn lane_of(&mut self, key: Option<&str>) -> usize {
        let count = self.jobs.len() as u64;
        let number = match key {
            Some(key) => {
                let mut hasher = DefaultHasher::new();
                key.hash(&mut hasher);
                hasher.finish() % count
            }
            None => {
                self.next_keyless = self.next_keyless.wrapping_add(1);
                self.next_keyless as u64 % count
            }
        };
        usize::try_from(number).unwrap_or(0)
    }
}

/// What has been handed to the lanes and not answered yet.
pub(crate) struct Dispatched(Vec<oneshot::Receiver<Reply>>);

impl Dispatched {
    /// Waits for every lane that got a part.
    pub(crate) async fn settled(self) -> Result<Vec<Published>, LaneEnd> {
        let mut all = Vec::new();
        for reply in self.0 {
            let part = reply.await.unwrap_or_else(|_| {
                let source = "a lane ended before it answered".into();
                Err(LaneEnd::Unavailable(Unavailable::Lost { source }))
            })?;
            if all.is_empty() {
                all = part;
            } else {
                all.extend(part);
            }
        }
        Ok(all)
    }
}

async fn work(
    mut lane: Box<dyn Lane>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    deadline: LeaseDeadline,
    held_keys: HeldKeys,
) {
    while let Some(job) = jobs.recv().await {
        let Job { seqs, messages, held, reply } = job;
        let result = publish(&mut *lane, seqs, messages, held, &deadline, &held_keys).await;
        let ended = result.is_err();
        let _ = reply.send(result);
        if ended {
            // Jobs behind this one must not overtake it on a lane that works again.
            return;
        }
    }
}

async fn publish(
    lane: &mut dyn Lane,
    seqs: Vec<i64>,
    messages: Vec<Message>,
    held: bool,
    deadline: &LeaseDeadline,
    held_keys: &HeldKeys,
) -> Reply {
    let mut behind = Vec::new();
    let (seqs, messages) = if held || !held_keys.any() {
        (seqs, messages)
    } else {
        let mut kept: (Vec<i64>, Vec<Message>) = (Vec::new(), Vec::new());
        for (seq, message) in seqs.into_iter().zip(messages) {
            if held_keys.contains(message.ordering_key.as_deref()) {
                behind.push(Published { seq, message, fate: Fate::Behind });
            } else {
                kept.0.push(seq);
                kept.1.push(message);
            }
        }
        kept
    };
    if deadline.passed() {
        return Err(LaneEnd::LeaseExpired);
    }
    let verdicts = lane.publish(&messages).await.map_err(LaneEnd::Unavailable)?;
    let mut published = behind;
    published.reserve(messages.len());
    for ((seq, message), verdict) in seqs.into_iter().zip(messages).zip(verdicts) {
        let fate = match verdict {
            Verdict::Confirmed => Fate::Confirmed,
            other => {
                if let Some(key) = &message.ordering_key {
                    held_keys.add(key);
                }
                Fate::Not(other)
            }
        };
        published.push(Published { seq, message, fate });
    }
    Ok(published)
}
