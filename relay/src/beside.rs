//! Settings of the relay beside those of its database.

use std::time::Duration;

use outbox::admin::AdminStore;

use crate::settings::{Settings, SettingsError, Wake};

/// Reading, advancing and renewing go on at once.
const LEAST: u32 = 3;

impl Settings {
    /// Checks them against how connections of the kind `C` are opened and guarded.
    ///
    /// # Errors
    /// The first [`SettingsError`] found.
    pub fn validate_with<C: AdminStore>(&self, pool: &db::Settings) -> Result<(), SettingsError> {
        if pool.pool_size < LEAST {
            return Err(SettingsError {
                setting: "pool_size",
                value: pool.pool_size.to_string(),
                reason: "reading, advancing and renewing go on at once".to_owned(),
                remedy: format!("give the relay's pool {LEAST} connections or more"),
            });
        }
        if pool.acquire_timeout >= self.lease {
            let reason = "a renewal could wait for a connection until the lease has ended";
            return Err(self.too_long("acquire_timeout", pool.acquire_timeout, reason));
        }
        let reason = "a write could wait for another transaction until the lease has ended";
        match C::lock_wait(pool) {
            Some(wait) if wait < self.lease => {}
            Some(wait) => return Err(self.too_long("lock_timeout", wait, reason)),
            None => {
                let reason = format!("it means no limit: {reason}");
                return Err(self.too_long("lock_timeout", Duration::ZERO, &reason));
            }
        }
        match self.wake {
            Wake::Poll => Ok(()),
            Wake::Notify if !C::TELLS => Err(cannot_be_told(
                "SQLite tells nobody of a commit",
                "set wake to poll, and poll_idle to what may be waited for",
            )),
            Wake::Notify if pool.transaction_pooler => Err(cannot_be_told(
                "with transaction_pooler = true the session that would be told belongs to others \
                 between transactions",
                "set wake to poll, or give the relay a direct address and transaction_pooler = false",
            )),
            Wake::Notify => Ok(()),
        }
    }

    fn too_long(&self, setting: &'static str, value: Duration, reason: &str) -> SettingsError {
        SettingsError {
            setting,
            value: format!("{value:?}"),
            reason: reason.to_owned(),
            remedy: format!("make it less than the lease ({:?})", self.lease),
        }
    }
}

fn cannot_be_told(reason: &str, remedy: &str) -> SettingsError {
    SettingsError {
        setting: "wake",
        value: "notify".to_owned(),
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(all(test, feature = "postgres", feature = "sqlite"))]
mod tests {
    use diesel::{PgConnection, SqliteConnection};

    use super::*;

    fn refused<C: AdminStore>(change: impl FnOnce(&mut db::Settings)) -> Option<String> {
        let mut pool = db::Settings::default();
        change(&mut pool);
        Settings::default().validate_with::<C>(&pool).err().map(|error| error.to_string())
    }

    #[test]
    fn nothing_may_wait_for_as_long_as_the_lease() {
        let lease = Settings::default().lease;
        assert_eq!(refused::<PgConnection>(|_| {}), None);
        let just_below = lease - Duration::from_millis(1);
        for setting in ["acquire_timeout", "lock_timeout"] {
            let set = |pool: &mut db::Settings, wait| match setting {
                "acquire_timeout" => pool.acquire_timeout = wait,
                _ => pool.lock_timeout = wait,
            };
            assert_eq!(refused::<PgConnection>(|pool| set(pool, just_below)), None);
            for text in [
                refused::<PgConnection>(|pool| set(pool, lease)),
                refused::<SqliteConnection>(|pool| set(pool, lease)),
            ] {
                let text = text.expect("refused");
                assert!(text.starts_with(&format!("{setting} = 20s cannot be used")), "{text}");
                assert!(text.ends_with("make it less than the lease (20s)"), "{text}");
            }
        }
        let text = refused::<PgConnection>(|pool| pool.pool_size = 2).expect("refused");
        assert!(text.starts_with("pool_size = 2"), "{text}");
    }

    #[test]
    fn zero_is_no_limit_on_one_database_and_no_wait_on_the_other() {
        let zero = |pool: &mut db::Settings| pool.lock_timeout = Duration::ZERO;
        let text = refused::<PgConnection>(zero).expect("refused");
        assert!(text.starts_with("lock_timeout = 0ns") && text.contains("no limit"), "{text}");
        assert_eq!(refused::<SqliteConnection>(zero), None);
    }

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
}
