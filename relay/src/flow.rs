//! What a session has under way, and how to wait for it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use db::CallError;
use diesel::result::Error;
use outbox::reader::{Advance, Chunk, Due, Hold, Position};
use tokio::time::Instant as Timer;

use crate::holds::{Round, RoundError};
use crate::lanes::{LaneEnd, Published};

pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;
pub(crate) type DbResult<T> = Result<T, CallError<Error>>;

/// What is under way.
pub(crate) struct Flow {
    /// Where the next read starts; runs ahead of the stored cursor.
    pub(crate) position: Position,
    pub(crate) reading: Option<Work<DbResult<Chunk>>>,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) advancing: Option<Work<DbResult<Advance>>>,
    pub(crate) renewing: Option<Work<DbResult<Advance>>>,
    pub(crate) looking: Option<Work<DbResult<Vec<Due>>>>,
    pub(crate) retrying: Option<Work<Result<Round, RoundError>>>,
    pub(crate) loading_keys: Option<Work<DbResult<Vec<String>>>>,
    /// A key may be free again: load the set anew as soon as nothing is in flight.
    pub(crate) keys_stale: bool,
    pub(crate) stopping: bool,
    pub(crate) exhausted: bool,
    pub(crate) empty_reads: u32,
    pub(crate) next_read: Timer,
    pub(crate) next_renewal: Timer,
    pub(crate) next_look: Timer,
    pub(crate) totals: Totals,
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
    pub(crate) holds: Vec<Hold>,
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
            loading_keys: None,
            keys_stale: true,
            stopping: false,
            exhausted: false,
            empty_reads: 0,
            next_read: now,
            next_renewal: now,
            next_look: now,
            totals: Totals::default(),
        }
    }

    pub(crate) fn idle(&self) -> bool {
        self.reading.is_none()
            && self.in_flight.is_empty()
            && self.advancing.is_none()
            && self.looking.is_none()
            && self.retrying.is_none()
            && self.loading_keys.is_none()
    }
}

pub(crate) struct Settled {
    pub(crate) next: Position,
    pub(crate) holds: Vec<Hold>,
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
pub(crate) async fn settled(in_flight: &mut VecDeque<InFlight>) -> Settled {
    let published = match in_flight.front_mut() {
        Some(oldest) => (&mut oldest.settled).await,
        None => std::future::pending().await,
    };
    match in_flight.pop_front() {
        Some(InFlight { next, holds, .. }) => Settled { next, holds, published },
        None => std::future::pending().await,
    }
}
