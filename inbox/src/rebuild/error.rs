use diesel::result::Error;
use message::InvalidMessage;

/// Why a step of a rebuild was not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// One generation is built at a time.
    #[error(
        "generation {generation} of consumer {consumer:?} is being built; switch to it or abandon it first"
    )]
    AlreadyBuilding {
        /// The consumer.
        consumer: String,
        /// The generation.
        generation: u32,
    },
    /// Another generation is being built, or none.
    #[error(
        "generation {generation} of consumer {consumer:?} is not being built ({}); `begin` gives out the number",
        match building { Some(other) => format!("{other} is"), None => "none is".to_owned() }
    )]
    NotBuilding {
        /// The consumer.
        consumer: String,
        /// The generation asked for.
        generation: u32,
        /// The one that is.
        building: Option<u32>,
    },
    /// Messages of the new generation are parked: it lacks their effects.
    #[error(
        "messages of {consumer:?} are parked; decide about them first, or it lacks their effects"
    )]
    Parked {
        /// The generation's name.
        consumer: String,
    },
    /// Nobody has said yet that it has everything.
    #[error(
        "generation {generation} of consumer {consumer:?} has not caught up; when its replay is done and its queue is empty, say so with `caught_up`"
    )]
    NotCaughtUp {
        /// The consumer.
        consumer: String,
        /// The generation.
        generation: u32,
    },
    /// The generation is the active one or is being built.
    #[error(
        "generation {generation} of consumer {consumer:?} is in use; switch to another one or abandon it first"
    )]
    InUse {
        /// The consumer.
        consumer: String,
        /// The generation.
        generation: u32,
    },
    /// No such generation has been begun.
    #[error("consumer {consumer:?} has had no generation {generation} yet; the newest is {newest}")]
    Unknown {
        /// The consumer.
        consumer: String,
        /// The generation.
        generation: u32,
        /// The newest.
        newest: u32,
    },
    /// `#` separates a consumer's name from its generation.
    #[error("{consumer:?} cannot be a consumer's own name: `#` begins the number of a generation")]
    ReservedName {
        /// The name.
        consumer: String,
    },
    /// A name or text that cannot be stored.
    #[error("it cannot be recorded so: {0}")]
    Invalid(#[from] InvalidMessage),
    /// No reason was given.
    #[error("say why, for whoever reads the audit later")]
    NoReason,
    /// The database refused.
    #[error("the database refused: {0}")]
    Database(#[from] Error),
}
