use std::sync::Arc;
use std::time::Duration;

use db::Db;
use outbox::admin::AdminStore;
use transport::Publisher;

use crate::engine::Relay;
use crate::settings::{Settings, SettingsError};
use crate::status::Status;
use crate::telemetry::Counters;

/// A relay whose settings are not checked yet.
#[must_use]
pub struct RelayBuilder<C: AdminStore> {
    pub(crate) db: Db<C>,
    pub(crate) publisher: Arc<dyn Publisher>,
    pub(crate) settings: Settings,
}

impl<C: AdminStore> RelayBuilder<C> {
    /// Other settings than the default.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`SettingsError`], for a setting that would void a guarantee.
    pub fn build(self) -> Result<Relay<C>, SettingsError> {
        let Self { db, publisher, settings } = self;
        settings.validate(publisher.heartbeat(), publisher.publish_timeout())?;
        if db.settings().pool_size < 3 {
            return Err(SettingsError {
                setting: "pool_size",
                value: db.settings().pool_size.to_string(),
                reason: "reading, advancing and renewing go on at once".to_owned(),
                remedy: "give the relay's pool 3 connections or more".to_owned(),
            });
        }
        let acquire: Duration = db.settings().acquire_timeout;
        if acquire >= settings.lease {
            return Err(SettingsError {
                setting: "acquire_timeout",
                value: format!("{acquire:?}"),
                reason: "a renewal could wait for a connection until the lease has ended"
                    .to_owned(),
                remedy: format!("make it less than the lease ({:?})", settings.lease),
            });
        }
        let counters = Counters::new(&settings.cursor);
        let status = Status::default();
        let purged_to = Arc::default();
        Ok(Relay { db, publisher, settings: Arc::new(settings), counters, status, purged_to })
    }
}
