//! Held messages that are tried again.

use std::collections::HashMap;
use std::sync::Arc;

use db::{CallError, Db};
use diesel::result::Error;
use message::Message;
use outbox::reader::{Due, Held, Hold, HoldReason, HoldResult, LogStore, ReadLimit};

use crate::lanes::{Dispatched, LaneEnd};
use crate::settings::Settings;
use crate::settle::{outcome, unpublishable};
use crate::telemetry::Counters;

/// What a look at the database brought.
pub(crate) struct Look {
    /// Why an operator paused the cursor.
    pub(crate) paused: Option<String>,
    /// Held messages that are due.
    pub(crate) due: Vec<Due>,
}

/// Due messages, sorted by what is to be done.
#[derive(Default)]
pub(crate) struct Round {
    /// To be tried.
    pub(crate) messages: Vec<(i64, Message)>,
    known: HashMap<i64, Known>,
    /// Those that are not tried and change all the same.
    changed: Vec<Hold>,
}

struct Known {
    attempts: u32,
    reason: HoldReason,
}

/// How a round of attempts ended, to be recorded.
pub(crate) struct Tried {
    pub(crate) results: Vec<Held>,
    /// Keys that were added to the held ones on the way.
    pub(crate) keys: Vec<String>,
    pub(crate) confirmed: u64,
    /// Those of the confirmed ones that counted as held.
    pub(crate) counted: u64,
}

impl Round {
    pub(crate) fn of(due: Vec<Due>, settings: &Settings) -> Self {
        let mut round = Self::default();
        for Due { mut entry, attempts, reason, blocked } in due {
            // Its time has come: only a row that is no message at all stays.
            entry.delayed = false;
            if let Some(hold) = unpublishable(&entry, settings) {
                round.changed.push(hold);
            } else if blocked {
                round.changed.push(behind(entry.seq, entry.message.ordering_key));
            } else {
                round.known.insert(entry.seq, Known { attempts, reason });
                round.messages.push((entry.seq, entry.message));
            }
        }
        round
    }

    /// Waits for the attempts.
    pub(crate) async fn finish(
        self,
        settings: Arc<Settings>,
        counters: Counters,
        dispatched: Dispatched,
    ) -> Result<Tried, LaneEnd> {
        let Self { known, changed, .. } = self;
        let published = dispatched.settled().await?;
        let attempts = |seq| known.get(&seq).map_or(0, |known| known.attempts);
        let mut batch = outcome(&settings, &counters, published, attempts);
        let waits_already = |hold: &Hold| {
            hold.reason == HoldReason::Behind
                && known.get(&hold.seq).is_some_and(|known| known.reason == HoldReason::Behind)
        };
        batch.holds.retain(|hold| !waits_already(hold));
        batch.holds.extend(changed);
        counters.held(&batch.holds);
        let confirmed = batch.confirmed.len() as u64;
        let counts = |seq: &&i64| {
            let reason = known.get(seq).map(|known| known.reason);
            !matches!(reason, Some(HoldReason::Delayed | HoldReason::Behind))
        };
        let counted = batch.confirmed.iter().filter(counts).count() as u64;
        let results = batch
            .confirmed
            .into_iter()
            .map(|seq| Held::Published { seq })
            .chain(batch.holds.into_iter().map(Held::Still))
            .collect();
        Ok(Tried { results, keys: batch.keys, confirmed, counted })
    }
}

fn behind(seq: i64, ordering_key: Option<String>) -> Hold {
    Hold { seq, ordering_key, reason: HoldReason::Behind, result: HoldResult::UntilFirst }
}

/// Looks for held messages that are due now, and whether the cursor is paused.
pub(crate) async fn look<C: LogStore>(
    db: Db<C>,
    settings: Arc<Settings>,
) -> Result<Look, CallError<Error>> {
    let limit = ReadLimit { rows: settings.chunk_rows, bytes: settings.chunk_bytes };
    db.call_within(settings.lease, move |conn| {
        let paused = conn.paused(&settings.cursor)?;
        let due = match &paused {
            Some(_) => Vec::new(),
            None => conn.due(&settings.cursor, limit)?,
        };
        Ok(Look { paused, due })
    })
    .await
}
