use diesel::QueryableByName;
use diesel::migration::Migration;
use diesel::result::Error;
use diesel::sql_types::Text;

use crate::error::{MigrationFailed, SchemaError};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// One applied migration.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct Stamp {
    /// Its version: the digits of its folder name.
    #[diesel(sql_type = Text)]
    pub version: String,
    /// Its slug.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// The oldest version of a build that still works with it.
    #[diesel(sql_type = Text)]
    pub compatible_from: String,
}

/// A connection that can hold our tables. Implemented for `PgConnection` and `SqliteConnection`.
pub trait Migrate: diesel::Connection + Sized {
    /// The embedded files, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    fn embedded() -> Result<Vec<Box<dyn Migration<Self::Backend>>>, Source>;

    /// Runs `work` in one transaction that no other migrating process can enter.
    ///
    /// # Errors
    /// What `work` or the database said; then nothing is kept.
    fn exclusively<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, MigrationFailed>,
    ) -> Result<T, MigrationFailed>;

    /// What has been applied, oldest first; empty where the tables are missing.
    ///
    /// # Errors
    /// When the database refuses.
    fn stamps(&mut self) -> Result<Vec<Stamp>, Error>;

    /// Runs the up or down file of one migration.
    ///
    /// # Errors
    /// What the database said.
    fn step(&mut self, migration: &dyn Migration<Self::Backend>, up: bool) -> Result<(), Source>;
}

/// Applies what is missing and returns it; nothing to do is an empty list. Waits while another
/// process migrates. All or nothing.
///
/// # Errors
/// [`MigrationFailed`]; then nothing was changed.
pub fn run<C: Migrate>(conn: &mut C) -> Result<Vec<String>, MigrationFailed> {
    let embedded = C::embedded().map_err(MigrationFailed::Embedded)?;
    conn.exclusively(|conn| {
        // Read again under the lock: another process may have migrated while this one waited.
        let stamps = conn.stamps()?;
        let mut applied = Vec::new();
        for migration in &embedded {
            let version = version_of(migration.as_ref());
            if stamps.iter().all(|stamp| stamp.version != version) {
                perform(conn, migration.as_ref(), true)?;
                applied.push(migration.name().to_string());
            }
        }
        Ok(applied)
    })
}

/// Reverts the newest migration and returns its name; `None` where nothing is applied. The data in
/// its tables is gone.
///
/// # Errors
/// [`MigrationFailed`]; then nothing was changed.
pub fn revert_last<C: Migrate>(conn: &mut C) -> Result<Option<String>, MigrationFailed> {
    let embedded = C::embedded().map_err(MigrationFailed::Embedded)?;
    conn.exclusively(|conn| {
        let Some(newest) = conn.stamps()?.pop() else { return Ok(None) };
        let migration = embedded
            .iter()
            .find(|migration| version_of(migration.as_ref()) == newest.version)
            .ok_or(MigrationFailed::Unknown { version: newest.version })?;
        perform(conn, migration.as_ref(), false)?;
        Ok(Some(migration.name().to_string()))
    })
}

/// Reverts everything, newest first. The data is gone.
///
/// # Errors
/// [`MigrationFailed`]; what was reverted before stays reverted.
pub fn revert_all<C: Migrate>(conn: &mut C) -> Result<Vec<String>, MigrationFailed> {
    let mut reverted = Vec::new();
    while let Some(name) = revert_last(conn)? {
        reverted.push(name);
    }
    Ok(reverted)
}

/// What has been applied, oldest first.
///
/// # Errors
/// When the database refuses.
pub fn applied<C: Migrate>(conn: &mut C) -> Result<Vec<Stamp>, Error> {
    conn.stamps()
}

/// Checks that the tables are what this build needs. A newer schema is fine as long as its
/// migrations only added to it.
///
/// # Errors
/// [`SchemaError`], naming the remedy.
pub fn check<C: Migrate>(conn: &mut C) -> Result<(), SchemaError> {
    let embedded = C::embedded().map_err(SchemaError::Embedded)?;
    let ours = embedded.iter().map(|m| version_of(m.as_ref())).max().unwrap_or_default();
    let stamps = conn.stamps()?;
    let Some(found) = stamps.last().map(|stamp| stamp.version.clone()) else {
        return Err(SchemaError::Missing);
    };
    if let Some(stamp) = stamps.iter().find(|stamp| stamp.compatible_from > ours) {
        let compatible_from = stamp.compatible_from.clone();
        return Err(SchemaError::TooNew { found, compatible_from, ours });
    }
    let missing = |version: &String| stamps.iter().all(|stamp| stamp.version != *version);
    match embedded.iter().map(|m| version_of(m.as_ref())).find(missing) {
        Some(_) => Err(SchemaError::Outdated { found, needed: ours }),
        None => Ok(()),
    }
}

fn version_of<DB: diesel::backend::Backend>(migration: &dyn Migration<DB>) -> String {
    migration.name().version().to_string()
}

fn perform<C: Migrate>(
    conn: &mut C,
    migration: &dyn Migration<C::Backend>,
    up: bool,
) -> Result<(), MigrationFailed> {
    conn.step(migration, up)
        .map_err(|source| MigrationFailed::Step { name: migration.name().to_string(), source })
}
