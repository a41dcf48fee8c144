//! Calls to the database that a session has under way.

use std::sync::Arc;
use std::time::Instant;

use db::{CallError, Class, Db, classify};
use diesel::result::Error;
use outbox::reader::{Advance, LogStore, Settled};

use crate::deadline::LeaseDeadline;
use crate::flow::{DbResult, Known, Work};
use crate::settings::Settings;

/// How often a write is tried that loses against another transaction. The winner is through once ours is
/// rolled back, so a second time is rare; each may last as long as the lock timeout.
const TRIES: u32 = 3;

/// What a write under the lease brought.
pub(crate) trait Outcome: Send + 'static {
    /// Whether it was written, and the lease renewed with it.
    fn renewed(&self) -> bool;
}

impl Outcome for Advance {
    fn renewed(&self) -> bool {
        matches!(self, Self::Done)
    }
}

impl Outcome for Settled {
    fn renewed(&self) -> bool {
        matches!(self, Self::Done { .. })
    }
}

/// A write that renews the lease: our own deadline moves only when it succeeded, and counts from
/// before it was sent.
///
/// One that lost against another transaction is written again. Nothing of it is there, and giving the session
/// up over it would repeat everything in flight.
pub(crate) fn fenced<C: LogStore, T: Outcome>(
    db: &Db<C>,
    deadline: &LeaseDeadline,
    write: impl Fn(&mut C) -> Result<T, Error> + Send + Sync + 'static,
) -> Work<DbResult<T>> {
    let (db, deadline, write) = (db.clone(), deadline.clone(), Arc::new(write));
    Box::pin(async move {
        let mut tries = 1;
        loop {
            let (asked, write) = (Instant::now(), write.clone());
            match db.call_within(deadline.ttl(), move |conn| write(conn)).await {
                Ok(outcome) => {
                    if outcome.renewed() {
                        deadline.renewed(asked);
                    }
                    return Ok(outcome);
                }
                Err(error) if tries < TRIES && has_lost(&error) && !deadline.passed() => {
                    tracing::warn!(%error, tries, "a write lost against another transaction; writing it again");
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    })
}

/// Whether the transaction was rolled back for another one's sake.
fn has_lost(error: &CallError<Error>) -> bool {
    match error {
        CallError::Work(error) | CallError::Commit(error) => classify(error) == Class::Contention,
        CallError::PoolExhausted { .. }
        | CallError::TimedOut { .. }
        | CallError::Panicked { .. }
        | CallError::Cancelled
        | CallError::Begin(_) => false,
    }
}

/// What is held, and whether the cursor is paused.
pub(crate) async fn load<C: LogStore>(db: Db<C>, settings: Arc<Settings>) -> DbResult<Known> {
    db.call_within(settings.lease, move |conn| {
        let cursor = &settings.cursor;
        let (keys, held) = (conn.held_keys(cursor)?, conn.count_held(cursor)?);
        Ok(Known { keys, held, paused: conn.paused(cursor)? })
    })
    .await
}

#[cfg(feature = "sqlite")]
#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use diesel::SqliteConnection;
    use diesel::result::DatabaseErrorKind;

    use super::*;

    const TTL: Duration = Duration::from_secs(20);

    fn contention() -> Error {
        let kind = DatabaseErrorKind::SerializationFailure;
        Error::DatabaseError(kind, Box::new("deadlock detected".to_owned()))
    }

    /// How often a write is sent that fails so often, and whether it was written in the end.
    async fn written(
        deadline: &LeaseDeadline,
        failures: u32,
        failure: fn() -> Error,
    ) -> (u32, bool) {
        let file =
            std::env::temp_dir().join(format!("fenced-{}.db", uuid::Uuid::new_v4().simple()));
        let db =
            Db::<SqliteConnection>::open(file.to_str().expect("UTF-8"), db::Settings::default())
                .expect("opens");
        let times = Arc::new(AtomicU32::new(0));
        let sent = times.clone();
        let write = move |_: &mut SqliteConnection| {
            if sent.fetch_add(1, Ordering::SeqCst) < failures {
                Err(failure())
            } else {
                Ok(Advance::Done)
            }
        };
        let ended = fenced(&db, deadline, write).await;
        drop(db);
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
        }
        (times.load(Ordering::SeqCst), ended.is_ok())
    }

    #[tokio::test]
    async fn what_lost_against_another_is_written_again_within_bounds() {
        let deadline = LeaseDeadline::new(Instant::now(), TTL);
        assert_eq!(written(&deadline, 0, contention).await, (1, true));
        assert_eq!(written(&deadline, TRIES - 1, contention).await, (TRIES, true));
        assert_eq!(written(&deadline, u32::MAX, contention).await, (TRIES, false));
        assert_eq!(written(&deadline, u32::MAX, || Error::NotFound).await, (1, false));
    }

    #[tokio::test]
    async fn nothing_is_written_again_after_the_lease() {
        let over = Instant::now().checked_sub(2 * TTL).expect("uptime of a minute");
        assert_eq!(written(&LeaseDeadline::new(over, TTL), 1, contention).await, (1, false));
    }

    #[tokio::test]
    async fn only_what_was_written_moves_the_deadline() {
        let asked = Instant::now().checked_sub(TTL / 2).expect("uptime of a minute");
        let deadline = LeaseDeadline::new(asked, TTL);
        let before = deadline.ends();
        written(&deadline, u32::MAX, contention).await;
        assert_eq!(deadline.ends(), before);
        written(&deadline, 1, contention).await;
        assert!(deadline.ends() > before);
    }
}
