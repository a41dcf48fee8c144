//! How long an inbox keeps what it knows, and the purge of the rest.

use std::time::Duration;

use diesel::QueryResult;
use diesel::connection::LoadConnection;

use crate::backend::InboxBackend;
use crate::effect::EffectBackend;
use crate::store::micros;
use crate::{BuildError, Consumer, rebuild};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an inbox keeps what it knows.
///
/// The time for which operations are kept *is* the time for which duplicates are recognized: one that
/// comes later runs its handler again. [`Builder::build`](crate::Builder::build) therefore refuses a
/// window shorter than the time a message can be under way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// How long an operation is kept after it was claimed, and so its duplicates recognized. Default
    /// 90 days. A row costs about 200 bytes and its result. Its effects go after it; those that are under way or
    /// unknown stay, however old they are.
    pub operations: Duration,
    /// How long its result is kept, where that is shorter: a later duplicate is still one, and gets
    /// [`Outcome::Forgotten`](crate::Outcome::Forgotten). Default `None`: as long as the operation.
    /// Set it when results are large, or hold what should not be kept.
    pub results: Option<Duration>,
    /// How long the count of starts of a message that brought its process down is kept after the last
    /// of them. Default 30 days. Such a message that comes later is counted from the beginning.
    pub starts: Duration,
    /// How long a parked message that waits for a decision is kept after it was parked last. Default
    /// `None`: until somebody decides. What is deleted here was never applied.
    pub parked: Option<Duration>,
    /// The longest time the broker may keep a message before it delivers it: the queue's message TTL,
    /// or the longest stop of this consumer you want to survive. Default 7 days. A copy of a message
    /// can lie in a queue that long after another copy was applied.
    pub broker: Duration,
    /// How far back replays may reach. Default zero: none are made. A replay of something older than
    /// what is kept here would apply it again.
    pub replay: Duration,
    /// The pause between two rounds of an inbox's own purge. Default 10 min.
    pub every: Duration,
    /// Rows per statement, from 1 to 100,000. Default 1000. Each statement is a transaction of its own
    /// and locks no more than these.
    pub rows: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            operations: 90 * DAY,
            results: None,
            starts: 30 * DAY,
            parked: None,
            broker: 7 * DAY,
            replay: Duration::ZERO,
            every: Duration::from_secs(600),
            rows: 1000,
        }
    }
}

impl Retention {
    /// Refuses what would make duplicates of messages still under way run again. `retries` is the
    /// longest time for which a received message can be tried again before it is applied.
    pub(crate) fn check(&self, retries: Duration) -> Result<(), BuildError> {
        let needed = [self.broker, self.replay].into_iter().fold(retries, Duration::saturating_add);
        if self.operations < needed {
            return Err(BuildError::WindowTooShort {
                operations: self.operations,
                needed,
                retries,
                broker: self.broker,
                replay: self.replay,
            });
        }
        let bad =
            |setting, value: String, remedy| Err(BuildError::BadSetting { setting, value, remedy });
        if let Some(results) = self.results.filter(|results| *results > self.operations) {
            return bad(
                "retention.results",
                format!("{results:?}"),
                "a result goes with its operation; set at most retention.operations, or None",
            );
        }
        if self.every.is_zero() {
            return bad(
                "retention.every",
                "0".to_owned(),
                "it would purge without a pause; set at least 1 ms",
            );
        }
        if !(1..=100_000).contains(&self.rows) {
            return bad("retention.rows", self.rows.to_string(), "set 1 to 100,000");
        }
        Ok(())
    }
}

/// How far [`purge`] has walked. Begin with the default, and hand the same one in from call to call
/// and round to round: results that were dropped are then not looked at again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Operations claimed up to here have no result left; microseconds since 1970.
    results: i64,
}

/// What one call of [`purge`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Purged {
    /// Operations deleted.
    pub operations: u64,
    /// Results dropped from operations that stay.
    pub results: u64,
    /// Effects deleted.
    pub effects: u64,
    /// Counts of starts deleted.
    pub starts: u64,
    /// Parked messages deleted.
    pub parked: u64,
    /// Nothing more is due; else call again.
    pub done: bool,
}

/// What a walk over results has done.
#[derive(Debug)]
pub struct Dropped {
    pub(crate) dropped: i64,
    pub(crate) looked_at: i64,
    /// Where to go on; `None` where nothing was there to look at.
    pub(crate) last: Option<i64>,
}

/// Deletes what a consumer need not keep any longer, oldest first, by the database's clock: at most
/// [`Retention::rows`] rows of each table, one statement each. Call it outside a transaction, until it
/// is done. An operation that another transaction has locked (a duplicate is being counted) is left
/// for another call. Several processes may purge at once.
///
/// An [`Inbox`](crate::Inbox) built with [`Builder::retention`](crate::Builder::retention) does so by
/// itself; where `once` is used without one, do it from time to time. The windows are taken as they
/// are: nothing here knows how long your messages are under way.
///
/// # Errors
/// When the database refuses. What was done until then stays done.
pub fn purge<C>(
    conn: &mut C,
    consumer: Consumer<'_>,
    retention: &Retention,
    progress: &mut Progress,
) -> QueryResult<Purged>
where
    C: LoadConnection,
    C::Backend: InboxBackend,
{
    let rows = i64::from(retention.rows);
    let operations =
        C::Backend::delete_operations(conn, consumer, micros(retention.operations), rows)?;
    let mut looked_at = 0;
    let mut results = 0;
    if let Some(window) = retention.results {
        let walk =
            C::Backend::drop_results(conn, consumer, micros(window), progress.results, rows)?;
        progress.results = walk.last.unwrap_or(progress.results);
        (results, looked_at) = (walk.dropped, walk.looked_at);
    }
    // All generations of a consumer share its effects, and each of them can be the last one to know of an operation.
    let own = Consumer(rebuild::own(consumer.0));
    let names = rebuild::names(conn, own.0)?;
    let window = micros(retention.operations);
    let effects = C::Backend::delete_effects(conn, own, &names, window, rows)?;
    let starts = C::Backend::delete_starts(conn, consumer, micros(retention.starts), rows)?;
    let parked = match retention.parked {
        Some(window) => C::Backend::delete_parked(conn, consumer, micros(window), rows)?,
        None => 0,
    };
    let count = |rows: i64| rows.max(0).unsigned_abs();
    Ok(Purged {
        operations: count(operations),
        results: count(results),
        effects: count(effects),
        starts: count(starts),
        parked: count(parked),
        done: [operations, looked_at, effects, starts, parked]
            .into_iter()
            .all(|looked_at| looked_at < rows),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_shorter_than_a_message_s_way_is_refused_with_every_figure() {
        let retries = Duration::from_secs(600);
        let mut retention = Retention { replay: 14 * DAY, ..Retention::default() };
        assert_eq!(retention.check(retries), Ok(()));
        retention.operations = 21 * DAY + retries;
        assert_eq!(retention.check(retries), Ok(()), "exactly as long will do");
        retention.operations -= Duration::from_micros(1);
        let refused = retention.check(retries).expect_err("too short");
        assert_eq!(
            refused,
            BuildError::WindowTooShort {
                operations: retention.operations,
                needed: 21 * DAY + retries,
                retries,
                broker: 7 * DAY,
                replay: 14 * DAY,
            }
        );
        retention.operations = DAY;
        let text = retention.check(retries).expect_err("too short").to_string();
        for figure in ["retention.operations is 1day", "21days 10m", "7days", "14days", "raise"] {
            assert!(text.contains(figure), "{figure}: {text}");
        }
    }

    #[test]
    fn windows_that_make_no_sense_are_refused_by_name() {
        type Spoil = fn(&mut Retention);
        let cases: [(Spoil, &str); 4] = [
            (|r| r.results = Some(91 * DAY), "retention.results is "),
            (|r| r.every = Duration::ZERO, "retention.every is 0"),
            (|r| r.rows = 0, "retention.rows is 0"),
            (|r| r.broker = Duration::MAX, "retention.operations is "),
        ];
        for (spoil, text) in cases {
            let mut retention = Retention::default();
            spoil(&mut retention);
            let error = retention.check(DAY).expect_err(text).to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
