//! A database of its own for each test, migrated, gone afterwards.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use db::Db;
use diesel::sql_types::BigInt;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};

use crate::PATIENCE;
use crate::services::database_url;

/// A fresh database. Dropping it deletes it.
pub struct Database {
    /// Where it is: a URL, or a path.
    pub url: String,
    kind: Kind,
}

enum Kind {
    Postgres { name: String },
    Sqlite { dir: std::path::PathBuf },
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    format!("cf_{:x}_{}_{}", now, std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Database {
    /// An empty PostgreSQL database.
    #[must_use]
    pub fn empty_postgres() -> Self {
        let name = unique();
        let mut admin = PgConnection::establish(&database_url()).expect("DATABASE_URL answers");
        sql_query(format!("CREATE DATABASE {name}"))
            .execute(&mut admin)
            .expect("may create databases");
        Self { url: with_database(&database_url(), &name), kind: Kind::Postgres { name } }
    }

    /// A migrated PostgreSQL database.
    #[must_use]
    pub fn postgres() -> Self {
        let database = Self::empty_postgres();
        migrations::run(&mut database.pg()).expect("migrates");
        database
    }

    /// An empty SQLite file.
    #[must_use]
    pub fn empty_sqlite() -> Self {
        let dir = std::env::temp_dir().join(unique());
        std::fs::create_dir(&dir).expect("temporary directory");
        let url = dir.join("test.db").to_str().expect("UTF-8 path").to_owned();
        Self { url, kind: Kind::Sqlite { dir } }
    }

    /// A migrated SQLite file.
    #[must_use]
    pub fn sqlite() -> Self {
        let database = Self::empty_sqlite();
        migrations::run(&mut *database.sqlite_pool(1).get::<()>().expect("opens"))
            .expect("migrates");
        database
    }

    /// A connection of its own, with the server's defaults.
    #[must_use]
    pub fn pg(&self) -> PgConnection {
        PgConnection::establish(&self.url).expect("connects")
    }

    /// Returns when a session of this database is seen to wait for another one's lock. SQLite shows nobody
    /// its waiters; there this returns at once, and what a test asserts must hold either way.
    pub fn until_one_waits(&self) {
        self.until_so_many_wait(1);
    }

    /// The same of several sessions.
    pub fn until_so_many_wait(&self, sessions: i64) {
        let query = "SELECT count(*) AS n FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
        if let Kind::Postgres { .. } = self.kind {
            let mut conn = self.pg();
            let mut waiters =
                || sql_query(query).get_result::<Count>(&mut conn).expect("answers").n;
            let begun = Instant::now();
            while waiters() < sessions {
                assert!(begun.elapsed() < PATIENCE / 4, "fewer than {sessions} sessions wait");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// A pool on PostgreSQL.
    #[must_use]
    pub fn pg_pool(&self, size: u32) -> Db<PgConnection> {
        Db::open(&self.url, db::Settings::default().with_pool_size(size)).expect("opens")
    }

    /// A pool on SQLite.
    #[must_use]
    pub fn sqlite_pool(&self, size: u32) -> Db<SqliteConnection> {
        Db::open(&self.url, db::Settings::default().with_pool_size(size)).expect("opens")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        match &self.kind {
            Kind::Postgres { name } => {
                if let Ok(mut admin) = PgConnection::establish(&database_url()) {
                    let _ = sql_query(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                        .execute(&mut admin);
                }
            }
            Kind::Sqlite { dir } => {
                let _ = std::fs::remove_dir_all(dir);
            }
        }
    }
}

/// The same server and login, another database.
fn with_database(address: &str, name: &str) -> String {
    let mut url = url::Url::parse(address).expect("DATABASE_URL is a URL");
    url.set_path(name);
    url.into()
}
