use anyhow::{Context, Result};

use crate::config::Config;

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
