//! Settings of the relay beside those of its database.

use outbox::admin::AdminStore;

use crate::settings::{Settings, SettingsError, Wake};

impl Settings {
    /// Checks the settings against how connections to the database are opened.
    ///
    /// # Errors
    /// The first [`SettingsError`] found.
    pub fn validate_with<C: AdminStore>(
        &self,
        database: &db::Settings,
    ) -> Result<(), SettingsError> {
        let refuse = |setting, value: String, reason: &str, remedy: String| {
            Err(SettingsError { setting, value, reason: reason.to_owned(), remedy })
        };
        if database.pool_size < 3 {
            return refuse(
                "pool_size",
                database.pool_size.to_string(),
                "reading, advancing and renewing go on at once",
                "give the relay's pool 3 connections or more".to_owned(),
            );
        }
        if database.acquire_timeout >= self.lease {
            return refuse(
                "acquire_timeout",
                format!("{:?}", database.acquire_timeout),
                "a renewal could wait for a connection until the lease has ended",
                format!("make it less than the lease ({:?})", self.lease),
            );
        }
        match self.wake {
            Wake::Poll => Ok(()),
            Wake::Notify if !C::TELLS => refuse(
                "wake",
                "notify".to_owned(),
                "SQLite tells nobody of a commit",
                "set wake to poll, and poll_idle to what may be waited for".to_owned(),
            ),
            Wake::Notify if database.transaction_pooler => refuse(
                "wake",
                "notify".to_owned(),
                "with transaction_pooler = true the session that would be told belongs to others \
                 between transactions",
                "set wake to poll, or give the relay a direct address and transaction_pooler = false"
                    .to_owned(),
            ),
            Wake::Notify => Ok(()),
        }
    }
}

#[cfg(all(test, feature = "postgres", feature = "sqlite"))]
mod tests {
    use super::*;
    use diesel::{PgConnection, SqliteConnection};

    #[test]
    fn to_be_told_asks_for_a_database_and_a_session_that_can() {
        let direct = db::Settings::default();
        let pooled = db::Settings::default().behind_transaction_pooler();
        let polls = Settings::default();
        let told = Settings { wake: Wake::Notify, ..Settings::default() };
        assert_eq!(polls.validate_with::<PgConnection>(&pooled), Ok(()));
        assert_eq!(polls.validate_with::<SqliteConnection>(&direct), Ok(()));
        assert_eq!(told.validate_with::<PgConnection>(&direct), Ok(()));
        for refused in [
            told.validate_with::<PgConnection>(&pooled),
            told.validate_with::<SqliteConnection>(&direct),
        ] {
            let text = refused.expect_err("refused").to_string();
            assert!(text.starts_with("wake = notify") && text.contains("poll"), "{text}");
        }
        let text = told.validate_with::<PgConnection>(&pooled).expect_err("refused").to_string();
        assert!(text.contains("transaction_pooler = true") && text.contains("direct"), "{text}");
    }

    #[test]
    fn the_pool_must_serve_a_renewal_in_time() {
        let setting = |database: db::Settings| {
            let checked = Settings::default().validate_with::<PgConnection>(&database);
            checked.map_err(|error| error.setting)
        };
        assert_eq!(setting(db::Settings::default().with_pool_size(2)), Err("pool_size"));
        let mut slow = db::Settings::default();
        slow.acquire_timeout = Settings::default().lease;
        assert_eq!(setting(slow), Err("acquire_timeout"));
    }
}
