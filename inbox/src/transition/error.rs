use diesel::result::Error;
use message::InvalidMessage;

use super::UnknownLabel;

/// Why a machine cannot be declared so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The machine, a state or an event has a name that cannot be stored.
    #[error("the machine cannot be declared: {0}")]
    Invalid(#[from] InvalidMessage),
    /// Two states or two events are stored under one name.
    #[error("two {what}s have the name {name:?}; give each its own")]
    SameName {
        /// `state` or `event`.
        what: &'static str,
        /// The name.
        name: &'static str,
    },
    /// A state or an event is used that its [`Label::ALL`](super::Label::ALL) does not list.
    #[error("{what} {name:?} is used and not listed; add it to `Label::ALL`")]
    Unknown {
        /// `state` or `event`.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// Two rules for one state and event: which one holds would depend on their order.
    #[error("state {state:?} has two rules for event {event:?}; keep one")]
    TwoRules {
        /// The state.
        state: &'static str,
        /// The event.
        event: &'static str,
    },
    /// No sequence of events leads from the initial state to these.
    #[error("no event leads to {states:?}; add a rule with `To`, or remove what nobody can be in")]
    Unreachable {
        /// Their names.
        states: Vec<&'static str>,
    },
    /// What is said for everything else would move an entity that nothing was said about.
    #[error(
        "everything without a rule would move to {state:?}; write that rule out, and make `Review` the rest"
    )]
    DefaultMoves {
        /// Where to.
        state: &'static str,
    },
}

/// Why an event could not be judged. Roll the transaction back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransitionError {
    /// No transaction is open on the connection: the move and its history, and the business change
    /// that goes with them, would commit apart.
    #[error(
        "no transaction is open on this connection; apply the event inside `conn.transaction(|tx| …)` together with the business change"
    )]
    NoTransaction,
    /// The entity's name breaks a limit. Nothing was sent to the database.
    #[error("the entity cannot be named so: {0}")]
    Invalid(#[from] InvalidMessage),
    /// The entity is in a state that this build does not know.
    #[error("the entity's state cannot be read: {0}")]
    UnknownState(#[from] UnknownLabel),
    /// Its state was another one each time it was to be moved.
    #[error(
        "the entity would not be moved {rounds} times in a row; it changes faster than that, or its compare-and-set does not look at the state that its load reads"
    )]
    Contended {
        /// How often it was read.
        rounds: u32,
    },
    /// The tables are missing.
    #[error(
        "there are no state machines on this connection's search path: {0}; run `relay migrate` on this database"
    )]
    MissingTable(#[source] Error),
    /// The database refused.
    #[error("the event could not be judged: {0}")]
    Database(#[source] Error),
}

impl From<Error> for TransitionError {
    fn from(error: Error) -> Self {
        let missing = crate::store::missing::transitions(&error);
        if missing { Self::MissingTable(error) } else { Self::Database(error) }
    }
}

/// Lets a business transaction whose error is diesel's apply events as it is. The text is kept.
impl From<TransitionError> for Error {
    fn from(error: TransitionError) -> Self {
        match error {
            TransitionError::Database(error) | TransitionError::MissingTable(error) => error,
            other => Self::QueryBuilderError(Box::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use diesel::result::DatabaseErrorKind;

    use super::*;
    use crate::error::class_in;

    #[test]
    fn a_missing_table_is_named_and_contention_stays_what_it_is() {
        let database = |text: &str| {
            Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(text.to_owned()))
        };
        for text in ["relation \"inbox_states\" does not exist", "no such table: inbox_transitions"]
        {
            let error = TransitionError::from(database(text));
            assert!(matches!(error, TransitionError::MissingTable(_)));
            assert!(error.to_string().contains("relay migrate"));
        }
        let deadlock = TransitionError::from(database("deadlock detected"));
        assert_eq!(class_in(&deadlock), Some(db::Class::Contention));
        assert_eq!(class_in(&Error::from(deadlock)), Some(db::Class::Contention));
        let none = Error::from(TransitionError::NoTransaction);
        assert!(none.to_string().contains("no transaction"));
    }
}
