use anyhow::Result;
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};

use crate::Fixture;

/// A writer that has its transaction number and does not commit, and a snapshot that stays open.
/// Both end when dropped.
pub struct OpenTransactions {
    _writer: PgConnection,
    _snapshot: PgConnection,
}

impl OpenTransactions {
    /// Begins both. The writer has a message in the outbox, which nobody sees.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn begin(fixture: &Fixture) -> Result<Self> {
        let mut writer = PgConnection::establish(&fixture.database_url)?;
        writer.batch_execute(
            "BEGIN; INSERT INTO outbox_messages (kind, operation, payload) VALUES ('bench.open', 'open', '')",
        )?;
        let mut snapshot = PgConnection::establish(&fixture.database_url)?;
        snapshot.batch_execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox_cursors",
        )?;
        Ok(Self { _writer: writer, _snapshot: snapshot })
    }
}
