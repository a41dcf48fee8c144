use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

use crate::config::{Config, Secret};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Database {
    pub(crate) url: Option<Secret>,
    pub(crate) url_file: Option<PathBuf>,
    pub(crate) pool_size: Option<u32>,
    #[serde(with = "humantime_serde")]
    pub(crate) acquire_timeout: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) statement_timeout: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) lock_timeout: Option<Duration>,
    pub(crate) transaction_pooler: Option<bool>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) client_cert_file: Option<PathBuf>,
    pub(crate) client_key_file: Option<PathBuf>,
    pub(crate) allow_plaintext: Option<bool>,
}

/// What flags and environment say about the way to the database.
#[derive(Args, Clone, Debug)]
pub(crate) struct DatabaseFlags {
    /// The address is a transaction pooler's (PgBouncer with pool_mode = transaction).
    #[arg(long, global = true, env = "RELAY_TRANSACTION_POOLER", num_args = 0..=1, default_missing_value = "true")]
    transaction_pooler: Option<bool>,
    /// PEM file with the authorities that may vouch for the database server.
    #[arg(long, global = true, env = "RELAY_DATABASE_CA_FILE")]
    database_ca_file: Option<PathBuf>,
    /// PEM file with the certificate to show to the database server.
    #[arg(long, global = true, env = "RELAY_DATABASE_CLIENT_CERT_FILE")]
    database_client_cert_file: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[arg(long, global = true, env = "RELAY_DATABASE_CLIENT_KEY_FILE")]
    database_client_key_file: Option<PathBuf>,
    /// Let the connection to a database on another machine go unencrypted or unverified.
    #[arg(long, global = true, env = "RELAY_DATABASE_ALLOW_PLAINTEXT", num_args = 0..=1, default_missing_value = "true")]
    database_allow_plaintext: Option<bool>,
}

impl DatabaseFlags {
    /// Puts them over what the file says.
    pub(crate) fn place(self, part: &mut Database) {
        place(&mut part.transaction_pooler, self.transaction_pooler);
        place(&mut part.ca_file, self.database_ca_file);
        place(&mut part.client_cert_file, self.database_client_cert_file);
        place(&mut part.client_key_file, self.database_client_key_file);
        place(&mut part.allow_plaintext, self.database_allow_plaintext);
    }
}

/// A value given on a higher level goes over the one below.
pub(crate) fn place<T>(slot: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *slot = value;
    }
}

/// Which kind of database an address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Sqlite,
}

pub(crate) fn kind(address: &str) -> Kind {
    let scheme = ["postgres://", "postgresql://"].iter().any(|scheme| address.starts_with(scheme));
    // libpq's keyword form: `host=… dbname=…`.
    let keywords =
        ["host=", "dbname=", "service=", "user="].iter().any(|word| address.contains(word));
    if scheme || (keywords && !address.contains("://")) { Kind::Postgres } else { Kind::Sqlite }
}

pub(crate) fn address(config: &Config) -> Result<&str> {
    let url = config.database.url.as_ref().context(
        "no database named; set RELAY_DATABASE_URL, --database-url or [database] url in the settings file",
    )?;
    Ok(url.reveal())
}

/// SQLite makes a file of any name that is opened. Only `migrate` is to: a mistyped path would look like an empty
/// database, and be taken for one that is to be migrated.
pub(crate) fn must_exist(config: &Config) -> Result<()> {
    let Ok(address) = address(config) else { return Ok(()) };
    let path = address.strip_prefix("sqlite://").unwrap_or(address);
    // What is no plain path is judged by whoever opens it: a URI of SQLite's own, or an address with a slip in its
    // scheme, which can hold a password.
    if kind(address) == Kind::Postgres || path.contains([':', '@', '=']) {
        return Ok(());
    }
    let found = Path::new(path).try_exists().with_context(|| format!("cannot look for {path}"))?;
    if !found {
        bail!("there is no database {path}; correct the path, or make it with `relay migrate`");
    }
    Ok(())
}

pub(crate) fn settings(config: &Config) -> db::Settings {
    let mut settings =
        db::Settings::default().with_pool_size(4).with_application_name("counterfoil-relay");
    let part = &config.database;
    if let Some(size) = part.pool_size {
        settings.pool_size = size;
    }
    for (slot, value) in [
        (&mut settings.acquire_timeout, part.acquire_timeout),
        (&mut settings.statement_timeout, part.statement_timeout),
        (&mut settings.lock_timeout, part.lock_timeout),
    ] {
        *slot = value.unwrap_or(*slot);
    }
    settings.transaction_pooler = part.transaction_pooler.unwrap_or(settings.transaction_pooler);
    settings.allow_plaintext = part.allow_plaintext.unwrap_or(settings.allow_plaintext);
    settings.ca_file.clone_from(&part.ca_file);
    settings.client_cert_file.clone_from(&part.client_cert_file);
    settings.client_key_file.clone_from(&part.client_key_file);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_tells_the_kind() {
        for address in ["postgres://h/db", "postgresql://h/db", "host=h dbname=shop"] {
            assert_eq!(kind(address), Kind::Postgres, "{address}");
        }
        for address in ["shop.db", "/var/lib/shop.db", "sqlite:///var/lib/shop.db"] {
            assert_eq!(kind(address), Kind::Sqlite, "{address}");
        }
    }
}
