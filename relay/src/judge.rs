//! What follows from how a session ended.

use std::time::Duration;

use db::{CallError, Class, classify};
use diesel::result::Error;
use outbox::admin::AdminStore;

use crate::engine::Relay;
use crate::error::RelayError;
use crate::session::SessionEnd;

/// What the loop does after a session.
pub(crate) enum After {
    Stop,
    StandBy,
    Wait,
}

impl<C: AdminStore> Relay<C> {
    pub(crate) fn judge(&self, end: SessionEnd, ever_connected: bool) -> Result<After, RelayError> {
        let cursor = &self.settings.cursor;
        match end {
            SessionEnd::Shutdown | SessionEnd::Drained | SessionEnd::CircuitOpen(_) => {
                Ok(After::Stop)
            }
            SessionEnd::ShutdownForced => {
                Err(RelayError::Unsettled { after: self.settings.shutdown_timeout })
            }
            SessionEnd::LeaseLost => {
                tracing::warn!(cursor, "lease lost to another relay, or the database failed over");
                self.status.failed(&"the lease was lost");
                Ok(After::StandBy)
            }
            SessionEnd::LeaseExpired => {
                tracing::warn!(cursor, "lease not renewed in time; claiming anew");
                self.status.failed(&"the lease was not renewed in time");
                Ok(After::Wait)
            }
            SessionEnd::Broker(error) if error.needs_operator() && !ever_connected => {
                Err(RelayError::Broker(error))
            }
            SessionEnd::Broker(error) => {
                tracing::warn!(%error, "broker unavailable; nothing is lost, trying again");
                self.status.failed(&error);
                Ok(After::Wait)
            }
            SessionEnd::Stalled(after) => {
                let error = stalled(after);
                tracing::warn!(%error, "no progress; beginning anew");
                self.status.failed(&error);
                Ok(After::Wait)
            }
            SessionEnd::Database(CallError::Work(error)) => match classify(&error) {
                Class::Schema => Err(RelayError::SchemaChanged(error)),
                Class::Denied => Err(RelayError::Denied(error)),
                Class::Pooler => Err(RelayError::Pooler(error)),
                Class::Contention | Class::Unavailable | Class::Other => {
                    tracing::warn!(%error, "database failed; nothing is lost, trying again");
                    self.status.failed(&error);
                    Ok(After::Wait)
                }
            },
            SessionEnd::Database(error) => {
                tracing::warn!(%error, "database unavailable; nothing is lost, trying again");
                self.status.failed(&error);
                Ok(After::Wait)
            }
        }
    }
}

pub(crate) fn stalled(after: Duration) -> transport::Unavailable {
    transport::Unavailable::Timeout { step: "settle anything", after }
}

pub(crate) fn is_fatal(error: &CallError<Error>) -> bool {
    matches!(error, CallError::Work(error) if matches!(classify(error), Class::Schema | Class::Denied | Class::Pooler))
}
