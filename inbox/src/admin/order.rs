use std::time::SystemTime;

use diesel::result::Error;

/// Who orders a change, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The person or program, 1 to 255 bytes.
    pub actor: String,
    /// Why, for whoever reads the audit later.
    pub reason: String,
    /// Only say what would be changed. Default false.
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
    /// What was done, as in `parked.retry`.
    pub action: String,
    /// The consumer whose message it was.
    pub consumer: String,
    /// Why.
    pub reason: String,
    /// The message as it was parked, without its payload: a JSON object.
    pub detail: String,
}

/// Why an order was not carried out. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No message of this number is parked.
    #[error(
        "no parked message has the number {id}: it was applied or decided about meanwhile, or never parked; `relay parked list` shows what is"
    )]
    UnknownMessage {
        /// The number.
        id: i64,
    },
    /// It waits for an earlier one of its ordering key, which it must not overtake.
    #[error(
        "parked message {id} waits behind {head}, the first of its ordering key {key:?}; decide about {head}, and it follows by itself"
    )]
    Behind {
        /// The number.
        id: i64,
        /// The first parked message of its ordering key.
        head: i64,
        /// The ordering key.
        key: String,
    },
    /// No effect has this number.
    #[error("no effect has the number {id}; `relay effects list` shows what there is")]
    UnknownEffect {
        /// The number.
        id: i64,
    },
    /// Nothing is to be decided about it.
    #[error(
        "effect {id} is {state}, and that is not to be decided: only what is unknown or was refused, or whose call has outlasted its lease; `relay effects show {id}` shows since when"
    )]
    EffectNotOpen {
        /// The number.
        id: i64,
        /// How it stands.
        state: crate::effect::State,
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
        message::check_name("actor", &self.actor).map_err(|error| AdminError::Unusable {
            field: "actor",
            value: self.actor.clone(),
            reason: error.to_string(),
        })?;
        let unusable = |reason: &str| {
            let (value, reason) = (self.reason.clone(), reason.to_owned());
            Err(AdminError::Unusable { field: "reason", value, reason })
        };
        if self.reason.trim().is_empty() {
            return unusable("say why, for whoever reads the audit later");
        }
        if self.reason.contains('\0') {
            return unusable("it contains a NUL character, which no text column can hold");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_who_and_why() {
        assert!(Order::new("anna", "fixed").check().is_ok());
        for (actor, reason, text) in
            [("", "r", "actor"), ("anna", " \n", "say why"), ("anna", "a\0", "NUL")]
        {
            let error = Order::new(actor, reason).check().expect_err(text).to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
