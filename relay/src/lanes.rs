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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use message::{Headers, MessageId};
    use transport::memory::MemoryBroker;
    use transport::{Exchange, ExchangeKind, Topology};

    use super::*;

    fn message(key: Option<&str>) -> Message {
        Message {
            id: MessageId::new(),
            kind: "test".to_owned(),
            operation: "o".to_owned(),
            ordering_key: key.map(str::to_owned),
            exchange: "events".to_owned(),
            routing_key: String::new(),
            headers: Headers::new(),
            content_type: Message::JSON.to_owned(),
            payload: "{}".into(),
            created_at: std::time::SystemTime::now(),
        }
    }

    async fn broker() -> MemoryBroker {
        let broker = MemoryBroker::new();
        broker.record_published();
        let exchange = Exchange { name: "events".to_owned(), kind: ExchangeKind::Fanout };
        broker.declare_exchange(&exchange).await.expect("declares");
        broker
    }

    fn lease(age: Duration) -> LeaseDeadline {
        let asked = Instant::now().checked_sub(age).expect("uptime");
        LeaseDeadline::new(asked, Duration::from_secs(20))
    }

    #[tokio::test]
    async fn nothing_is_published_once_the_lease_may_have_ended() {
        let broker = broker().await;
        let publisher: Arc<dyn Publisher> = Arc::new(broker.clone());
        let deadline = lease(Duration::from_secs(21));
        let mut lanes =
            Lanes::open(&publisher, 2, &deadline, &HeldKeys::default()).await.expect("opens");
        let settled = lanes
            .dispatch(vec![(1, message(None)), (2, message(Some("k")))], false)
            .settled()
            .await;
        assert!(matches!(settled, Err(LaneEnd::LeaseExpired)), "{settled:?}");
        assert_eq!(broker.published(), []);
    }

    #[tokio::test]
    async fn a_refused_key_holds_back_what_is_already_queued_behind_it() {
        let broker = broker().await;
        let publisher: Arc<dyn Publisher> = Arc::new(broker.clone());
        let deadline = lease(Duration::ZERO);
        let mut lanes =
            Lanes::open(&publisher, 2, &deadline, &HeldKeys::default()).await.expect("opens");
        // No queue is bound, so the first is returned; the second was handed on before that was known.
        let first = lanes.dispatch(vec![(1, message(Some("k")))], false);
        let second = lanes.dispatch(vec![(2, message(Some("k")))], false);
        let first = first.settled().await.expect("settles");
        assert!(matches!(first[0].fate, Fate::Not(Verdict::Refused(_))), "{first:?}");
        let second = second.settled().await.expect("settles");
        assert!(matches!(second[0].fate, Fate::Behind), "{second:?}");
        // A held message that is tried again is not put behind itself.
        let again =
            lanes.dispatch(vec![(1, message(Some("k")))], true).settled().await.expect("settles");
        assert!(matches!(again[0].fate, Fate::Not(Verdict::Refused(_))), "{again:?}");
    }
}
