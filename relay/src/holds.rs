use std::collections::HashMap;
use std::sync::Arc;

use db::{CallError, Db};
use diesel::result::Error;
use outbox::reader::{Advance, Due, Held, Hold, Lease, LogStore, ReadLimit};

use crate::lanes::{Dispatched, LaneEnd};
use crate::settings::Settings;
use crate::settle::holds_of;
use crate::telemetry::Counters;

/// How a round over the held messages ended.
pub(crate) enum Round {
    /// Some were tried; whether any key may be free again.
    Tried {
        freed: bool,
    },
    LeaseLost,
}

/// Held messages on their way again.
pub(crate) struct Attempt {
    /// How often each was tried before.
    pub(crate) attempts: HashMap<i64, u32>,
    /// Those that cannot be tried.
    pub(crate) spoilt: Vec<Hold>,
    pub(crate) dispatched: Dispatched,
}

/// Waits for the attempts at held messages and records how they ended.
pub(crate) async fn finish<C: LogStore>(
    db: Db<C>,
    lease: Lease,
    settings: Arc<Settings>,
    counters: Counters,
    attempt: Attempt,
) -> Result<Round, RoundError> {
    let Attempt { attempts, spoilt, dispatched } = attempt;
    let published = dispatched.settled().await.map_err(RoundError::Lane)?;
    let tried = |seq| attempts.get(&seq).copied().unwrap_or(0);
    let (confirmed, mut holds) = holds_of(&settings, &counters, published, tried);
    holds.extend(spoilt);
    counters.held(&holds);
    let freed = !confirmed.is_empty();
    let results: Vec<Held> = confirmed
        .into_iter()
        .map(|seq| Held::Published { seq })
        .chain(holds.into_iter().map(Held::Still))
        .collect();
    let advance =
        db.call(move |conn| conn.settle(&lease, &results)).await.map_err(RoundError::Database)?;
    Ok(match advance {
        Advance::Done => Round::Tried { freed },
        Advance::LeaseLost => Round::LeaseLost,
    })
}

/// What went wrong in a round.
pub(crate) enum RoundError {
    Lane(LaneEnd),
    Database(CallError<Error>),
}

/// The held messages that are due now.
pub(crate) async fn due<C: LogStore>(
    db: Db<C>,
    settings: Arc<Settings>,
) -> Result<Vec<Due>, CallError<Error>> {
    let limit = ReadLimit { rows: settings.chunk_rows, bytes: settings.chunk_bytes };
    db.call(move |conn| conn.due(&settings.cursor, limit)).await
}
