use diesel::migration::{Migration, MigrationSource};
use diesel::result::Error;
use diesel::sql_types::BigInt;
use diesel::sqlite::Sqlite;
use diesel::{RunQueryDsl, SqliteConnection, sql_query};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};

use crate::error::MigrationFailed;
use crate::harness::{Migrate, Stamp};

/// The files for SQLite, for use with a diesel migration harness.
pub const SQLITE: EmbeddedMigrations = embed_migrations!("sqlite");

#[derive(diesel::QueryableByName)]
struct Exists {
    #[diesel(sql_type = BigInt)]
    found: i64,
}

impl Migrate for SqliteConnection {
    fn embedded()
    -> Result<Vec<Box<dyn Migration<Sqlite>>>, Box<dyn std::error::Error + Send + Sync>> {
        SQLITE.migrations()
    }

    fn exclusively<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, MigrationFailed>,
    ) -> Result<T, MigrationFailed> {
        // The write lock is the lock; how long to wait for it is the connection's busy_timeout.
        self.immediate_transaction(work)
    }

    fn stamps(&mut self) -> Result<Vec<Stamp>, Error> {
        let exists: Exists = sql_query(
            "SELECT count(*) AS found FROM sqlite_schema WHERE type = 'table' AND name = 'counterfoil_schema'",
        )
        .get_result(self)?;
        if exists.found == 0 {
            return Ok(Vec::new());
        }
        sql_query("SELECT version, name, compatible_from FROM counterfoil_schema ORDER BY version")
            .load(self)
    }

    fn step(
        &mut self,
        migration: &dyn Migration<Sqlite>,
        up: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if up { migration.run(self) } else { migration.revert(self) }
    }
}
