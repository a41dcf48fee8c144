/// A migration could not be run or reverted. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationFailed {
    /// The database refused a statement or could not be used.
    #[error("the database refused: {0}; {hint}", hint = hint(.0))]
    Database(#[from] diesel::result::Error),
    /// One migration failed.
    #[error("migration {name} failed: {source}")]
    Step {
        /// Its version and slug.
        name: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The embedded files are broken.
    #[error("the embedded migrations cannot be read: {0}")]
    Embedded(Box<dyn std::error::Error + Send + Sync>),
    /// The database holds a migration this build does not know and therefore cannot revert.
    #[error("schema version {version} was made by a newer release; revert it with that release")]
    Unknown {
        /// The version found.
        version: String,
    },
}

/// The tables are not what this build needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// There are no tables of ours where the connection looks.
    #[error(
        "no Counterfoil tables in this database (on PostgreSQL: on the connection's search path); run `relay migrate` (or migrations::run) on it"
    )]
    Missing,
    /// Migrations are still to be run.
    #[error(
        "the schema is at version {found} and this build needs {needed}; run `relay migrate` with this release"
    )]
    Outdated {
        /// The newest version applied.
        found: String,
        /// The newest version embedded.
        needed: String,
    },
    /// A newer release has changed the tables in a way this build cannot work with.
    #[error(
        "the schema is at version {found}, which needs at least the release of version {compatible_from}; this build is of {ours}: upgrade it"
    )]
    TooNew {
        /// The newest version applied.
        found: String,
        /// The oldest version of a build that can work with it.
        compatible_from: String,
        /// The newest version embedded here.
        ours: String,
    },
    /// The check itself failed.
    #[error("cannot read the schema version: {0}")]
    Database(#[from] diesel::result::Error),
    /// The embedded files are broken.
    #[error("the embedded migrations cannot be read: {0}")]
    Embedded(Box<dyn std::error::Error + Send + Sync>),
}

fn hint(error: &diesel::result::Error) -> &'static str {
    if error.to_string().contains("database is locked") {
        "another process is writing to it; try again when it has finished"
    } else {
        "the role that migrates must own the schema or may CREATE in it"
    }
}
