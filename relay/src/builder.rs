use std::sync::Arc;

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
        settings.validate_with::<C>(db.settings())?;
        let counters = Counters::new(&settings.cursor);
        let status = Status::default();
        let purged_to = Arc::default();
        Ok(Relay { db, publisher, settings: Arc::new(settings), counters, status, purged_to })
    }
}
