use std::time::{Duration, SystemTime};

use super::order::{AdminError, name};
use crate::reader::Filter;

/// A cursor as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorInfo {
    /// Its name.
    pub name: String,
    /// The sequence number it has come to.
    pub seq: i64,
    /// Raised each time the lease changes hands.
    pub epoch: i64,
    /// Who holds it, or held it last without giving it up.
    pub holder: Option<Holder>,
    /// When something was last handed on, by the database's clock.
    pub advanced_at: Option<SystemTime>,
    /// When it was made; `None` where that is not known.
    pub created_at: Option<SystemTime>,
    /// Which messages it hands on.
    pub filter: Filter,
    /// Whether an operator paused it.
    pub paused: Option<Paused>,
    /// The cluster its position belongs to; `None` until a relay first claimed it, and on SQLite.
    pub identity: Option<Identity>,
}

/// Who holds a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The holder's name.
    pub owner: String,
    /// How long its lease lasts yet; `None` when it has ended.
    pub remaining: Option<Duration>,
}

/// A pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paused {
    /// Since when.
    pub since: SystemTime,
    /// Why.
    pub reason: String,
}

/// Which PostgreSQL cluster, and which of its histories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The system identifier.
    pub system_id: String,
    /// The timeline.
    pub timeline: i64,
}

/// Where a new cursor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first message that is still in the log.
    Beginning,
    /// Behind everything committed so far. What is being written at this moment is handed on.
    Now,
}

/// A cursor to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCursor {
    /// Its name, 1 to 255 bytes.
    pub name: String,
    /// Which messages it hands on.
    pub filter: Filter,
    /// Where it starts.
    pub start: Start,
}

/// What the constraints allow.
const MOST_NAMES: usize = 1_000;

impl NewCursor {
    pub(crate) fn check(&self) -> Result<(), AdminError> {
        name("cursor", &self.name)?;
        let lists = [("kind", &self.filter.kinds), ("exchange", &self.filter.exchanges)];
        for (field, list) in lists {
            let Some(list) = list else { continue };
            if list.is_empty() || list.len() > MOST_NAMES {
                let reason = format!(
                    "name 1 to {MOST_NAMES}, or leave the filter out to let every {field} pass"
                );
                return Err(AdminError::Unusable {
                    field,
                    value: format!("{} names", list.len()),
                    reason,
                });
            }
            list.iter().try_for_each(|value| name(field, value))?;
        }
        Ok(())
    }
}
