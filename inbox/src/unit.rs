use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use message::{Fingerprint, MAX_NAME_BYTES, OperationKey, name};
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use transport::{Acknowledge, Delivery};

use crate::incoming::Incoming;
use crate::outstanding::Ticket;
use crate::park::digest;
use crate::route::{Job, Refusal};
use crate::store::retry::{Due, Lease, Start};

/// A message to apply.
pub(crate) struct Task<C> {
    pub(crate) incoming: Incoming,
    /// Of a parked one.
    pub(crate) lease: Option<Lease>,
    /// Of a redelivered one, whose starts are counted under it.
    pub(crate) digest: Option<Fingerprint>,
    key: Option<String>,
    /// As a parked one was named the first time.
    operation: Option<OperationKey>,
    /// What was known of a redelivered one before it was begun.
    pub(crate) looked: OnceLock<Start>,
    /// Whether its start is on record.
    begun: AtomicBool,
    decoded: OnceLock<Result<Arc<Job<C>>, Refusal>>,
    /// What its handler answered, or did the first time; kept where somebody waits for it.
    result: Mutex<Option<Box<RawValue>>>,
}

/// One that can be applied.
pub(crate) struct Ready<C> {
    pub(crate) task: Arc<Task<C>>,
    pub(crate) job: Arc<Job<C>>,
}

impl<C> Clone for Ready<C> {
    fn clone(&self) -> Self {
        Self { task: self.task.clone(), job: self.job.clone() }
    }
}

impl<C> Ready<C> {
    /// The ordering key, as parked, as its header says or else the event.
    pub(crate) fn key(&self) -> Option<&str> {
        self.task.key().or(self.job.ordering_key.as_deref())
    }
}

impl<C> Task<C> {
    pub(crate) fn due(due: Due) -> Self {
        let Due { lease, incoming, ordering_key, operation } = due;
        Self {
            incoming,
            lease: Some(lease),
            digest: None,
            key: ordering_key,
            operation,
            decoded: OnceLock::new(),
            looked: OnceLock::new(),
            begun: AtomicBool::new(false),
            result: Mutex::default(),
        }
    }

    fn delivered(incoming: Incoming) -> Self {
        let digest = incoming.redelivered.then(|| digest(&incoming));
        let key = incoming.headers.get(name::ORDERING_KEY).filter(|key| usable(key));
        Self {
            key: key.map(str::to_owned),
            incoming,
            lease: None,
            digest,
            operation: None,
            decoded: OnceLock::new(),
            looked: OnceLock::new(),
            begun: AtomicBool::new(false),
            result: Mutex::default(),
        }
    }

    /// The identity of its record, where it has one: what a log line names it by.
    pub(crate) fn message_id(&self) -> Option<&str> {
        self.incoming.message_id.as_deref()
    }

    /// The ordering key as far as it is known without decoding.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub(crate) fn decoded(
        &self,
        decode: impl FnOnce() -> Result<Job<C>, Refusal>,
    ) -> &Result<Arc<Job<C>>, Refusal> {
        self.decoded.get_or_init(|| {
            let job = decode()?;
            let operation = self.operation.clone().unwrap_or(job.operation);
            Ok(Arc::new(Job { operation, ..job }))
        })
    }

    /// The same if it has been done: a message that kills whoever decodes it is still to be talked about.
    pub(crate) fn if_decoded(&self) -> Option<&Arc<Job<C>>> {
        self.decoded.get()?.as_ref().ok()
    }

    /// Whether a start has to be put on record, and has not been.
    pub(crate) fn unbegun(&self) -> bool {
        (self.lease.is_some() || self.digest.is_some()) && !self.begun()
    }

    pub(crate) fn set_begun(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    pub(crate) fn begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Keeps the answer of the last run: a transaction that is repeated has another one.
    pub(crate) fn keep_result(&self, result: Option<Box<RawValue>>) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = result;
    }

    pub(crate) fn take_result(&self) -> Option<Box<RawValue>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Runs of its handler before this process got it.
    pub(crate) fn attempts(&self) -> u32 {
        self.lease.map_or(0, |lease| lease.attempts)
    }
}

/// An ordering key is a name: an empty one orders nothing, and a longer one fits no column.
pub(crate) fn usable(key: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&key.len())
}

/// A message with the means to answer it.
pub(crate) struct Unit<C> {
    pub(crate) task: Arc<Task<C>>,
    pub(crate) received: Instant,
    /// `None` for a parked message, which nobody waits for.
    pub(crate) reply: Option<Reply>,
    /// A parked message's place in the lot's work.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// The means to answer a delivery.
pub(crate) struct Reply {
    pub(crate) acker: Box<dyn Acknowledge>,
    pub(crate) ticket: Ticket,
    /// Ends with the subscription: nothing can be answered after that.
    pub(crate) lost: CancellationToken,
}

impl<C> Unit<C> {
    pub(crate) fn delivered(delivery: Delivery, ticket: Ticket, lost: CancellationToken) -> Self {
        let (incoming, acker) = Incoming::split(delivery);
        Self {
            task: Arc::new(Task::delivered(incoming)),
            received: Instant::now(),
            reply: Some(Reply { acker, ticket, lost }),
            room: None,
        }
    }

    pub(crate) fn due(due: Due) -> Self {
        let task = Arc::new(Task::due(due));
        Self { task, received: Instant::now(), reply: None, room: None }
    }

    /// Whether its subscription has ended: it comes again, and work on it would be for nothing.
    pub(crate) fn is_lost(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.lost.is_cancelled())
    }
}
