//! What a session has under way, and how to wait for it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use db::CallError;
use diesel::result::Error;
use outbox::reader::{Advance, Chunk, Hold, Position, Settled};
use tokio::time::Instant as Timer;

use crate::answers::PURGE_ROUND;
use crate::breaker::Breaker;
use crate::holds::{Look, Tried};
use crate::lanes::{LaneEnd, Published};

pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;
pub(crate) type DbResult<T> = Result<T, CallError<Error>>;

/// What is under way.
///
/// At most one of `advancing`, `settling` and `loading` at a time: each tells, or relies on, which
/// keys have held messages, and what one of them reads must not be outdated by another.
pub(crate) struct Flow {
    /// Where the next read starts; runs ahead of the stored cursor.
    pub(crate) position: Position,
    pub(crate) reading: Option<Work<DbResult<Chunk>>>,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) advancing: Option<Work<DbResult<Advance>>>,
    pub(crate) renewing: Option<Work<DbResult<Advance>>>,
    pub(crate) looking: Option<Work<DbResult<Look>>>,
    pub(crate) retrying: Option<Work<Result<Tried, LaneEnd>>>,
    /// Attempts at held messages that are to be recorded.
    pub(crate) tried: Option<Tried>,
    pub(crate) settling: Option<Work<DbResult<Settled>>>,
    pub(crate) loading: Option<Work<DbResult<Known>>>,
    pub(crate) purging: Option<Work<DbResult<outbox::admin::Purged>>>,
    /// What the advance or settling under way records: ordering keys, once for each message.
    pub(crate) recording: Vec<String>,
    /// Whether what is held was loaded; nothing is read before.
    pub(crate) known: bool,
    pub(crate) held: u64,
    pub(crate) paused: bool,
    pub(crate) breaker: Breaker,
    pub(crate) stopping: bool,
    pub(crate) exhausted: bool,
    pub(crate) empty_reads: u32,
    /// When rows were last read.
    pub(crate) rows_at: Timer,
    /// When the last read began.
    pub(crate) read_at: Timer,
    pub(crate) next_read: Timer,
    pub(crate) next_renewal: Timer,
    pub(crate) next_look: Timer,
    pub(crate) next_load: Timer,
    pub(crate) next_purge: Timer,
    pub(crate) next_purge_round: Timer,
    pub(crate) next_tick: Timer,
    pub(crate) totals: Totals,
}

/// What is held, as loaded.
pub(crate) struct Known {
    pub(crate) keys: Vec<String>,
    pub(crate) held: u64,
    pub(crate) paused: Option<String>,
}

/// What a session did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) confirmed: u64,
    pub(crate) held: u64,
}

/// One chunk on its way.
pub(crate) struct InFlight {
    pub(crate) next: Position,
    /// Messages handed to the lanes.
    pub(crate) messages: usize,
    pub(crate) holds: Vec<Hold>,
    /// Keys of `holds` that were added to the held ones.
    pub(crate) keys: Vec<String>,
    pub(crate) settled: Work<Result<Vec<Published>, LaneEnd>>,
}

impl Flow {
    pub(crate) fn from(position: Position) -> Self {
        let now = Timer::now();
        Self {
            position,
            reading: None,
            in_flight: VecDeque::new(),
            advancing: None,
            renewing: None,
            looking: None,
            retrying: None,
            tried: None,
            settling: None,
            loading: None,
            purging: None,
            recording: Vec::new(),
            known: false,
            held: 0,
            paused: false,
            breaker: Breaker::new(),
            stopping: false,
            exhausted: false,
            empty_reads: 0,
            rows_at: now,
            read_at: now,
            next_read: now,
            next_renewal: now,
            next_look: now,
            next_load: now,
            next_purge: now,
            next_purge_round: now + PURGE_ROUND,
            next_tick: now,
            totals: Totals::default(),
        }
    }

    /// Nothing is under way that a clean stop must wait for.
    pub(crate) fn idle(&self) -> bool {
        self.reading.is_none()
            && self.in_flight.is_empty()
            && !self.recording_something()
            && self.looking.is_none()
            && self.retrying.is_none()
            && self.tried.is_none()
    }

    /// What may not run at once with another of its like.
    pub(crate) fn recording_something(&self) -> bool {
        self.advancing.is_some() || self.settling.is_some() || self.loading.is_some()
    }

    pub(crate) fn messages_in_flight(&self) -> usize {
        self.in_flight.iter().map(|chunk| chunk.messages).sum()
    }
}

/// The oldest chunk, all of whose messages have their verdict.
pub(crate) struct Answered {
    pub(crate) next: Position,
    pub(crate) holds: Vec<Hold>,
    pub(crate) keys: Vec<String>,
    pub(crate) published: Result<Vec<Published>, LaneEnd>,
}

/// Waits for work that may not be there. Dropping it in the middle loses nothing: the work stays in
/// its slot.
pub(crate) async fn done<T>(slot: &mut Option<Work<T>>) -> T {
    match slot {
        Some(work) => {
            let value = work.await;
            *slot = None;
            value
        }
        None => std::future::pending().await,
    }
}

/// Waits for the oldest chunk.
pub(crate) async fn answered(in_flight: &mut VecDeque<InFlight>) -> Answered {
    let published = match in_flight.front_mut() {
        Some(oldest) => (&mut oldest.settled).await,
        None => std::future::pending().await,
    };
    match in_flight.pop_front() {
        Some(InFlight { next, holds, keys, .. }) => Answered { next, holds, keys, published },
        None => std::future::pending().await,
    }
}
