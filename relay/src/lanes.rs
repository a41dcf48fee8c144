use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use message::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use transport::{Lane, Publisher, Unavailable, Verdict};

use crate::deadline::LeaseDeadline;
use crate::held_keys::HeldKeys;
use crate::status::Status;
use crate::waves::{Waves, Window};

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

/// How a message of the log fared. Without the message: what is confirmed is not needed any more.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) seq: i64,
    pub(crate) created_at: SystemTime,
    /// Of one that is not confirmed.
    pub(crate) key: Option<String>,
    pub(crate) fate: Fate,
}

impl Published {
    fn of(seq: i64, message: Message, fate: Fate) -> Self {
        let Message { created_at, ordering_key, .. } = message;
        let key = if matches!(fate, Fate::Confirmed) { None } else { ordering_key };
        Self { seq, created_at, key, fate }
    }
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
    messages: Vec<(i64, Message)>,
    /// Whether these are held messages tried again, which must not be put behind themselves.
    held: bool,
    reply: oneshot::Sender<Reply>,
}

/// What every lane works by.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) deadline: LeaseDeadline,
    pub(crate) held_keys: HeldKeys,
    pub(crate) status: Status,
    /// Most messages in flight on a lane.
    pub(crate) window: usize,
    /// Most messages of one ordering key in flight.
    pub(crate) per_key: usize,
}

impl Lanes {
    /// Opens the lanes.
    pub(crate) async fn open(
        publisher: &Arc<dyn Publisher>,
        count: usize,
        rules: &Rules,
    ) -> Result<Self, Unavailable> {
        let mut jobs = Vec::with_capacity(count);
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let lane = publisher.open_lane().await?;
            // Unbounded, because the session bounds what is in flight by rows and bytes.
            let (sender, receiver) = mpsc::unbounded_channel();
            tasks.spawn(work(lane, receiver, rules.clone()));
            jobs.push(sender);
        }
        Ok(Self { jobs, next_keyless: 0, _tasks: tasks })
    }

    /// Splits messages over the lanes, one key always to the same, and returns what to wait for.
    pub(crate) fn dispatch(&mut self, messages: Vec<(i64, Message)>, held: bool) -> Dispatched {
        let count = self.jobs.len();
        let share = messages.len() / count + 1;
        let mut split: Vec<Vec<(i64, Message)>> =
            (0..count).map(|_| Vec::with_capacity(share)).collect();
        for (seq, message) in messages {
            let lane = self.lane_of(message.ordering_key.as_deref());
            split[lane].push((seq, message));
        }
        let mut replies = Vec::with_capacity(count);
        for (jobs, messages) in self.jobs.iter().zip(split) {
            if !messages.is_empty() {
                let (reply, receiver) = oneshot::channel();
                // A lane that has ended dropped its receiver, and the reply's sender with the job:
                // whoever waits learns it there.
                let _ = jobs.send(Job { messages, held, reply });
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

async fn work(mut lane: Box<dyn Lane>, mut jobs: mpsc::UnboundedReceiver<Job>, rules: Rules) {
    while let Some(Job { messages, held, reply }) = jobs.recv().await {
        let result = publish(&mut *lane, messages, held, &rules).await;
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
    messages: Vec<(i64, Message)>,
    held: bool,
    rules: &Rules,
) -> Reply {
    let mut published = Vec::with_capacity(messages.len());
    let mut waves = Waves::of(messages);
    // Of held messages tried again, a key stops at the first that is refused again.
    let mut stopped: HashSet<String> = HashSet::new();
    loop {
        let mut behind = Vec::new();
        let is_held =
            |key: &str| if held { stopped.contains(key) } else { rules.held_keys.contains(key) };
        let Window { seqs, messages } =
            waves.next(rules.window, rules.per_key, is_held, &mut behind);
        for item in behind {
            rules.hold_back(&item.message);
            published.push(Published::of(item.seq, item.message, Fate::Behind));
        }
        if messages.is_empty() {
            return Ok(published);
        }
        // Before each window: the broker knows nothing of epochs.
        if rules.deadline.passed() {
            return Err(LaneEnd::LeaseExpired);
        }
        let verdicts = lane.publish(&messages).await.map_err(LaneEnd::Unavailable)?;
        rules.status.progressed();
        for ((seq, message), verdict) in seqs.into_iter().zip(messages).zip(verdicts) {
            let fate = match verdict {
                Verdict::Confirmed => Fate::Confirmed,
                other => {
                    rules.hold_back(&message);
                    if held {
                        stopped.extend(message.ordering_key.clone());
                    }
                    Fate::Not(other)
                }
            };
            published.push(Published::of(seq, message, fate));
        }
    }
}

impl Rules {
    fn hold_back(&self, message: &Message) {
        if let Some(key) = &message.ordering_key {
            self.held_keys.add(key);
        }
    }
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

    async fn lanes(broker: &MemoryBroker, lease_age: Duration) -> Lanes {
        let asked = Instant::now().checked_sub(lease_age).expect("uptime");
        let rules = Rules {
            deadline: LeaseDeadline::new(asked, Duration::from_secs(20)),
            held_keys: HeldKeys::default(),
            status: Status::default(),
            window: 100,
            per_key: 1,
        };
        let publisher: Arc<dyn Publisher> = Arc::new(broker.clone());
        Lanes::open(&publisher, 2, &rules).await.expect("opens")
    }

    #[tokio::test]
    async fn nothing_is_published_once_the_lease_may_have_ended() {
        let broker = broker().await;
        let mut lanes = lanes(&broker, Duration::from_secs(21)).await;
        let settled = lanes
            .dispatch(vec![(1, message(None)), (2, message(Some("k")))], false)
            .settled()
            .await;
        assert!(matches!(settled, Err(LaneEnd::LeaseExpired)), "{settled:?}");
        assert_eq!(broker.published(), []);
    }

    #[tokio::test]
    async fn nothing_of_a_key_is_published_after_one_of_it_was_refused() {
        let broker = broker().await;
        let mut lanes = lanes(&broker, Duration::ZERO).await;
        // No queue is bound, so the first is returned; the others were handed on before that was
        // known, one of them in the same job.
        let job = vec![(1, message(Some("k"))), (2, message(Some("k")))];
        let first = lanes.dispatch(job, false);
        let second = lanes.dispatch(vec![(3, message(Some("k")))], false);
        let first = first.settled().await.expect("settles");
        assert!(matches!(first[0].fate, Fate::Not(Verdict::Refused(_))), "{first:?}");
        assert!(matches!(first[1].fate, Fate::Behind), "{first:?}");
        let second = second.settled().await.expect("settles");
        assert!(matches!(second[0].fate, Fate::Behind), "{second:?}");
        // Held ones that are tried again are not put behind themselves, but behind the first that is
        // refused again.
        let job = vec![(1, message(Some("k"))), (2, message(Some("k")))];
        let again = lanes.dispatch(job, true).settled().await.expect("settles");
        assert!(matches!(again[0].fate, Fate::Not(Verdict::Refused(_))), "{again:?}");
        assert!(matches!(again[1].fate, Fate::Behind), "{again:?}");
    }
}
