use std::time::{Duration, SystemTime};

use diesel::result::Error;

/// Who orders a change, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The person or program, 1 to 255 bytes.
    pub actor: String,
    /// Why, for whoever reads the audit later.
    pub reason: String,
    /// Only say what would be changed.
    pub dry_run: bool,
}

/// One change that an operator made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number.
    pub id: i64,
    /// When, by the database's clock.
    pub at: SystemTime,
    /// Who gave the order.
    pub actor: String,
    /// The database role that carried it out; empty on SQLite.
    pub role: String,
    /// What was done, as in `holds.retry`.
    pub action: String,
    /// The cursor it was done to.
    pub cursor: Option<String>,
    /// Why.
    pub reason: String,
    /// What was asked for and how much it changed, a JSON object.
    pub detail: String,
}

/// Why an order was not carried out. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No cursor of this name.
    #[error(
        "there is no cursor {cursor:?}; `relay cursors list` shows them, `relay cursors add` makes one"
    )]
    UnknownCursor {
        /// The name.
        cursor: String,
    },
    /// A cursor of this name is there already.
    #[error("there is a cursor {cursor:?} already; choose another name, or retire it first")]
    CursorExists {
        /// The name.
        cursor: String,
    },
    /// A relay holds the cursor.
    #[error(
        "cursor {cursor:?} is held by {owner} for another {remaining:?}; stop that relay first, or force it: then it stops by itself and what it has in flight is still published"
    )]
    CursorHeld {
        /// The cursor.
        cursor: String,
        /// Who holds it.
        owner: String,
        /// For how long yet.
        remaining: Duration,
    },
    /// No replay of this number.
    #[error("there is no replay {id}; `relay replay list` shows them")]
    UnknownReplay {
        /// The number.
        id: i64,
    },
    /// Somebody works on the replay.
    #[error(
        "{owner} works on replay {id}, for another {remaining:?} at least; wait for its end or stop it first"
    )]
    ReplayHeld {
        /// The number.
        id: i64,
        /// Who.
        owner: String,
        /// For how long yet, unless it is renewed.
        remaining: Duration,
    },
    /// The replay has ended.
    #[error("replay {id} is {state}; start another one")]
    ReplayOver {
        /// The number.
        id: i64,
        /// How it ended.
        state: &'static str,
    },
    /// There is nothing to replay.
    #[error(
        "nothing in the log fits the selection; look at the log and at what retention has left of it"
    )]
    NothingSelected,
    /// The selection begins before what the log still has.
    #[error(
        "the log begins at {first_kept}, after what the selection begins with: what came before was deleted, or never committed; begin there (--from-seq {first_kept}), or allow the gap (--allow-gap)"
    )]
    HistoryGone {
        /// The first place that is kept.
        first_kept: i64,
    },
    /// Messages that were asked for by id and are not there.
    #[error(
        "{count} of the ids are not in the log or do not fit the rest of the selection, {first} among them; leave them out, or allow the gap (--allow-gap)"
    )]
    MissingIds {
        /// How many.
        count: usize,
        /// The first of them.
        first: message::MessageId,
    },
    /// A name or text that cannot be stored.
    #[error("{field} {value:?} cannot be used: {reason}")]
    Unusable {
        /// What it is.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The tables belong to another role.
    #[error("only the owner of the tables may do this: {0}; give the command the owner's login")]
    NotOwner(#[source] Error),
    /// Open transactions kept a table from being changed.
    #[error(
        "the table could not be changed: {0}; transactions that wrote messages are open, and producers were not kept waiting for longer; try again, or see in pg_stat_activity who holds it"
    )]
    TableBusy(#[source] Error),
    /// The database failed or refused.
    #[error("the database refused: {0}")]
    Database(#[from] Error),
}

impl Order {
    /// An order by `actor` for `reason`.
    #[must_use]
    pub fn new(actor: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { actor: actor.into(), reason: reason.into(), dry_run: false }
    }

    pub(crate) fn check(&self) -> Result<(), AdminError> {
        name("actor", &self.actor)?;
        if self.reason.trim().is_empty() {
            let reason = "say why, for whoever reads the audit later".to_owned();
            return Err(AdminError::Unusable {
                field: "reason",
                value: self.reason.clone(),
                reason,
            });
        }
        Ok(())
    }
}

pub(crate) fn name(field: &'static str, value: &str) -> Result<(), AdminError> {
    message::check_name(field, value).map_err(|error| AdminError::Unusable {
        field,
        value: value.to_owned(),
        reason: error.to_string(),
    })
}
