use std::thread::sleep;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::Text;
use diesel::{QueryableByName, RunQueryDsl, SqliteConnection, sql_query};

use crate::{Backend, CallError, Class, OpenError, Refusal, Settings, classify};

/// Before this release two connections that reset the write-ahead log at once could lose commits.
const OLDEST: (u32, u32, u32) = (3, 51, 3);

/// Between two attempts at the switch, which holds its lock for one write of the first page.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

impl Backend for SqliteConnection {
    fn address(address: &str, _settings: &Settings) -> Result<String, OpenError> {
        let path = address.strip_prefix("sqlite://").unwrap_or(address);
        if path.is_empty() {
            return Err(OpenError::BadAddress { reason: "the path is empty".to_owned() });
        }
        if path == ":memory:" || path.contains("mode=memory") {
            let reason = "an in-memory database is private to one connection, and the outbox and its reader need \
                          two; give a file path";
            return Err(OpenError::BadAddress { reason: reason.to_owned() });
        }
        Ok(path.to_owned())
    }

    fn prepare(&mut self, settings: &Settings) -> Result<(), Error> {
        self.batch_execute(&format!(
            "PRAGMA busy_timeout = {}",
            settings.lock_timeout.as_millis()
        ))?;
        switch_to_wal(self, settings.lock_timeout)?;
        // FULL: "committed" must survive a power cut, or the outbox would lose what it promised.
        self.batch_execute("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")?;
        let found: Version = sql_query("SELECT sqlite_version() AS version").get_result(self)?;
        let mut parts = found.version.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        if (next(), next(), next()) < OLDEST {
            let text = format!(
                "SQLite {} can lose commits; use the bundled one (3.51.3 or newer)",
                found.version
            );
            return Err(Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text)));
        }
        Ok(())
    }

    fn refusal(_message: &str) -> Refusal {
        Refusal::Unreachable
    }

    fn lock_wait(settings: &Settings) -> Option<Duration> {
        Some(settings.lock_timeout)
    }

    fn unit<T, E>(
        &mut self,
        _settings: &Settings,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, CallError<E>> {
        work(self).map_err(CallError::Work)
    }

    fn write<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        // A deferred transaction that reads and then writes fails with BUSY whatever the timeout.
        self.immediate_transaction(work)
    }
}

/// A lock that five processes want which start at once on an empty file. `busy_timeout` does not
/// help: the switch reads before it writes, and SQLite tells BUSY at once to a reader that cannot
/// become the writer.
fn switch_to_wal(conn: &mut SqliteConnection, patience: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        match conn.batch_execute("PRAGMA journal_mode = WAL") {
            Err(error) if classify(&error) == Class::Contention && begun.elapsed() < patience => {
                sleep(PAUSE);
            }
            switched => return switched,
        }
    }
}
