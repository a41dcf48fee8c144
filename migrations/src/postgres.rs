use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::result::Error;
use diesel::sql_types::Bool;
use diesel::{Connection, PgConnection, RunQueryDsl, sql_query};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};

use crate::error::MigrationFailed;
use crate::harness::{Migrate, Stamp};

/// The files for PostgreSQL 13 and newer, for use with a diesel migration harness.
pub const POSTGRES: EmbeddedMigrations = embed_migrations!("postgres");

/// Any fixed number will do; it only has to differ from other users of advisory locks.
const LOCK: i64 = 0x636f_756e_7465_7266;

#[derive(diesel::QueryableByName)]
struct Exists {
    #[diesel(sql_type = Bool)]
    found: bool,
}

impl Migrate for PgConnection {
    fn embedded() -> Result<Vec<Box<dyn Migration<Pg>>>, Box<dyn std::error::Error + Send + Sync>> {
        POSTGRES.migrations()
    }

    fn exclusively<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, MigrationFailed>,
    ) -> Result<T, MigrationFailed> {
        self.transaction(|conn| {
            // A transaction's lock and not a session's: it works behind a pooler and cannot leak.
            // The wait is as long as the other's migration, whatever the session's timeouts.
            sql_query("SET LOCAL lock_timeout = 0").execute(conn)?;
            sql_query("SET LOCAL statement_timeout = 0").execute(conn)?;
            sql_query(format!("SELECT pg_advisory_xact_lock({LOCK})")).execute(conn)?;
            work(conn)
        })
    }

    fn stamps(&mut self) -> Result<Vec<Stamp>, Error> {
        // Asked first: a missing table would abort the transaction this runs in.
        let exists: Exists =
            sql_query("SELECT to_regclass('counterfoil_schema') IS NOT NULL AS found")
                .get_result(self)?;
        if !exists.found {
            return Ok(Vec::new());
        }
        sql_query("SELECT version, name, compatible_from FROM counterfoil_schema ORDER BY version")
            .load(self)
    }

    fn step(
        &mut self,
        migration: &dyn Migration<Pg>,
        up: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if up { migration.run(self) } else { migration.revert(self) }
    }
}
