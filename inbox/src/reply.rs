use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use message::{Headers, MAX_NAME_BYTES, Message, MessageId, name};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use transport::{Lane, Publisher, Refusal, Unavailable, Verdict};

use crate::ending::Ending;
use crate::incoming::Incoming;

/// What became of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replied {
    /// The broker has it.
    Sent,
    /// The broker would not take it: as a rule the queue is gone, and with it whoever was waiting.
    Refused,
    /// No broker could carry it: it is too large. Whoever waits is told that instead, if that can be carried.
    Unsendable,
    /// Its queue is none that may be answered.
    NotAllowed,
    /// The broker could not be used, and nobody will bring the command again but its sender.
    Lost,
}

impl Replied {
    pub(crate) const ALL: [Self; 5] =
        [Self::Sent, Self::Refused, Self::Unsendable, Self::NotAllowed, Self::Lost];

    /// As used as a metric label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::Unsendable => "unsendable",
            Self::NotAllowed => "not_allowed",
            Self::Lost => "lost",
        }
    }
}

type Settled = Result<Verdict, Arc<Unavailable>>;
type Allowed = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// Sends replies over one lane, those that wait at the same time together.
pub(crate) struct Replies {
    publisher: Arc<dyn Publisher>,
    allowed: Allowed,
    waiting: Mutex<Vec<(Message, oneshot::Sender<Settled>)>>,
    lane: tokio::sync::Mutex<Option<Box<dyn Lane>>>,
}

impl Replies {
    pub(crate) fn new(publisher: Arc<dyn Publisher>, allowed: Allowed) -> Self {
        Self { publisher, allowed, waiting: Mutex::default(), lane: tokio::sync::Mutex::default() }
    }

    /// Sends one, once.
    pub(crate) async fn send(&self, reply: Message) -> Result<Replied, Arc<Unavailable>> {
        // The name is the sender's, and may be one that the service's own check cannot cope with.
        let allowed = catch_unwind(AssertUnwindSafe(|| (self.allowed)(&reply.routing_key)));
        if !allowed.unwrap_or(false) {
            return Ok(Replied::NotAllowed);
        }
        let queue = reply.routing_key.clone();
        let (settle, settled) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((reply, settle));
        let mut lane = self.lane.lock().await;
        // Whoever held the lane before may have sent this one with its own.
        let batch =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if !batch.is_empty() {
            self.publish(&mut lane, batch).await;
        }
        drop(lane);
        match settled.await {
            Ok(Ok(Verdict::Confirmed)) => Ok(Replied::Sent),
            Ok(Ok(Verdict::Refused(Refusal::Unroutable { .. }))) => Ok(Replied::Refused),
            // Somebody may well be waiting. Waiting here for a full queue, or for a right to be granted, would keep
            // every other command from being handled.
            Ok(Ok(Verdict::Refused(refusal))) => {
                tracing::warn!(queue, reason = %refusal, "a reply was refused; whoever waits for it has to ask again");
                Ok(Replied::Lost)
            }
            Ok(Ok(Verdict::Poison(_))) => Ok(Replied::Unsendable),
            Ok(Err(error)) => Err(error),
            // Whoever sent it was given up in the middle.
            Err(_) => {
                Err(Arc::new(Unavailable::Lost { source: "the reply was not settled".into() }))
            }
        }
    }

    async fn publish(
        &self,
        lane: &mut Option<Box<dyn Lane>>,
        batch: Vec<(Message, oneshot::Sender<Settled>)>,
    ) {
        let (replies, settle): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        // Taken out: one that fails, or is given up in the middle, is of no more use.
        let sent = async {
            let mut open = match lane.take() {
                Some(open) => open,
                None => self.publisher.open_reply_lane().await?,
            };
            let verdicts = open.publish(&replies).await?;
            *lane = Some(open);
            Ok::<_, Unavailable>(verdicts)
        };
        match sent.await {
            Ok(verdicts) => {
                for (settle, verdict) in settle.into_iter().zip(verdicts) {
                    let _ = settle.send(Ok(verdict));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for settle in settle {
                    let _ = settle.send(Err(error.clone()));
                }
            }
        }
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").finish_non_exhaustive()
    }
}

/// The queue that waits for the answer. A replay is nobody's request.
pub(crate) fn reply_to(incoming: &Incoming) -> Option<&str> {
    if incoming.headers.get(name::REPLAY).is_some() {
        return None;
    }
    incoming.headers.get(name::REPLY_TO).filter(|queue| !queue.is_empty())
}

/// What whoever waits is told; `None` where there is no answer yet, or somebody else gives it. `again` says that a
/// parked message is tried again by itself.
pub(crate) const fn outcome(ending: Ending, has_result: bool, again: bool) -> Option<&'static str> {
    match ending {
        Ending::Duplicate if !has_result => Some("forgotten"),
        Ending::Applied | Ending::Stale | Ending::Duplicate => Some(ending.as_str()),
        Ending::Overtaken | Ending::Unsettled | Ending::Released => None,
        // Answered then.
        Ending::Parked(_) if again => None,
        Ending::Parked(reason) => Some(reason.as_str()),
    }
}

/// The reply to a message.
pub(crate) fn reply(
    to: &Incoming,
    queue: &str,
    operation: Option<&str>,
    outcome: &str,
    result: Option<&RawValue>,
) -> Message {
    const SUFFIX: &str = ".reply";
    let kind = to.kind.as_deref().unwrap_or_default();
    // A name that its suffix would make too long.
    let kind = if kind.len() + SUFFIX.len() > MAX_NAME_BYTES { "" } else { kind };
    let mut headers = Headers::new();
    headers.insert(name::OUTCOME, outcome);
    if let Some(id) = to.message_id.as_deref() {
        headers.insert(name::CAUSATION_ID, id);
    }
    if let Some(id) = to.headers.get(name::CORRELATION_ID).or(to.message_id.as_deref()) {
        headers.insert(name::CORRELATION_ID, id);
    }
    let id = MessageId::new();
    Message {
        kind: format!("{kind}{SUFFIX}"),
        operation: operation.map_or_else(|| id.to_string(), str::to_owned),
        id,
        ordering_key: None,
        exchange: String::new(),
        routing_key: queue.to_owned(),
        headers,
        content_type: Message::JSON.to_owned(),
        payload: Bytes::copy_from_slice(result.map_or("null", RawValue::get).as_bytes()),
        created_at: SystemTime::now(),
    }
}

/// What is told in the place of a result that no broker could carry.
pub(crate) fn without_result(reply: &Message) -> Message {
    let mut short = reply.clone();
    short.headers.insert(name::OUTCOME, Replied::Unsendable.as_str());
    short.payload = Bytes::from_static(b"null");
    short
}
