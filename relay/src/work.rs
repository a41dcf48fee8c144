//! Calls to the database that a session has under way.

use std::sync::Arc;
use std::time::Instant;

use db::Db;
use diesel::result::Error;
use outbox::reader::{Advance, LogStore};

use crate::deadline::LeaseDeadline;
use crate::flow::{DbResult, Known, Work};
use crate::settings::Settings;

/// A write that renews the lease: our own deadline moves only when it succeeded, and counts from
/// before it was sent.
pub(crate) fn fenced<C: LogStore>(
    db: &Db<C>,
    deadline: &LeaseDeadline,
    write: impl FnOnce(&mut C) -> Result<Advance, Error> + Send + 'static,
) -> Work<DbResult<Advance>> {
    let (db, deadline) = (db.clone(), deadline.clone());
    Box::pin(async move {
        let asked = Instant::now();
        let advance = db.call_within(deadline.ttl(), write).await?;
        if advance == Advance::Done {
            deadline.renewed(asked);
        }
        Ok(advance)
    })
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
