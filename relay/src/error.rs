use db::CallError;
use diesel::result::Error;
use migrations::SchemaError;
use outbox::reader::Foreign;
use transport::Unavailable;

use crate::settings::SettingsError;

/// Why the relay stopped by itself. Waiting would not have helped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// A setting would void a guarantee.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The tables are missing, too old or too new.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Asked to stop, and not everything in flight was settled in time. Nothing is lost: it is published
    /// again, and the lease ends by itself.
    #[error(
        "stopped after {after:?} with messages in flight that the broker had not confirmed: they are published again; raise shutdown_timeout if this happens without an outage"
    )]
    Unsettled {
        /// How long was waited.
        after: std::time::Duration,
    },
    /// Nothing more is handed on for the moment. Only from
    /// [`Relay::run_once`](crate::Relay::run_once); `run` waits.
    #[error(
        "nothing more is handed on for the moment ({circuit}): too large a share of the messages was refused, or too many are held; `relay holds list` shows why"
    )]
    CircuitOpen {
        /// The state of the circuit.
        circuit: &'static str,
    },
    /// There is no cursor of the name the settings give.
    #[error(
        "there is no cursor {cursor:?}; check the name, or add it with `relay cursors add {cursor}`: a new one hands on the whole log, or what comes from now on"
    )]
    UnknownCursor {
        /// The name.
        cursor: String,
    },
    /// The numbers of the cursor or of the log are another cluster's: the database was restored from a
    /// dump, or copied logically. Going on could skip messages.
    #[error(
        "cursor {cursor:?} cannot go on: {foreign}; was the database restored from a dump or copied? stop every relay of it and run `relay rebase --yes --reason …`, which keeps every message that is not published yet"
    )]
    Foreign {
        /// The cursor.
        cursor: String,
        /// How it shows.
        #[source]
        foreign: Foreign,
    },
    /// The broker refused the login, or its settings cannot work.
    #[error(transparent)]
    Broker(Unavailable),
    /// A table or column went missing while the relay ran.
    #[error("the outbox tables changed under the relay: {0}; run `relay migrate` and start again")]
    SchemaChanged(#[source] Error),
    /// The relay's role may not do its work.
    #[error(
        "the database role lacks a right: {0}; grant SELECT on counterfoil_schema, outbox_messages and its sequence, SELECT and UPDATE on outbox_cursors, SELECT, INSERT, UPDATE and DELETE on outbox_holds, and with a retention DELETE on outbox_messages; `relay roles` makes a role with these"
    )]
    Denied(#[source] Error),
    /// The address leads to a transaction pooler, and the relay was not told.
    #[error(
        "the database connection is shared by a transaction pooler: {0}; set transaction_pooler = true, or give the relay a direct address"
    )]
    Pooler(#[source] Error),
    /// The database failed. Only from [`Relay::run_once`](crate::Relay::run_once); `run` waits.
    #[error("the database failed: {0}")]
    Database(#[from] CallError<Error>),
    /// The broker cannot be used. Only from [`Relay::run_once`](crate::Relay::run_once); `run` waits.
    #[error(transparent)]
    Unavailable(Unavailable),
    /// Another relay holds the cursor. Only from [`Relay::run_once`](crate::Relay::run_once); `run`
    /// stands by.
    #[error(
        "cursor {cursor:?} is held by {owner}; stop that relay, wait for its lease to end, or use another cursor"
    )]
    Held {
        /// The cursor.
        cursor: String,
        /// Who holds it.
        owner: String,
    },
    /// The lease was lost in the middle. Only from [`Relay::run_once`](crate::Relay::run_once).
    #[error("the lease on cursor {cursor:?} was lost; another relay goes on from the last advance")]
    LeaseLost {
        /// The cursor.
        cursor: String,
    },
}
