use std::time::Duration;

use serde::de::DeserializeOwned;

use super::held::span;
use super::{EffectError, Effects, State};

/// How long a message waits for what a person decides about, where nothing wakes it.
pub(super) const DECISION: Duration = Duration::from_secs(60);

/// Why an effect is refused that was called off. Stored, and by it the row is known for that on every retry: change
/// it only together with what is stored.
const CALLED_OFF: &str = "called off: its compensation came before it was performed";

/// What came of a compensation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "whether something was undone"]
pub enum Compensated<R> {
    /// The effect had been performed and is undone, with this result; now, or by an earlier call.
    Undone(R),
    /// There is nothing to undo: the provider had refused the effect, or a person has decided so.
    Refused,
    /// As far as the ledger knows nobody had performed it, and from now on nobody will: it is called off, now or by an
    /// earlier call. Where it should have been performed look at the operation: what `order.placed` has done is undone
    /// in the handler of `order.cancelled` by [`Effects::of`] that operation. And at retention: of what it has deleted
    /// the ledger knows nothing.
    CalledOff,
}

impl<R> Compensated<R> {
    /// What undoing it brought; `None` where there was nothing to undo.
    pub fn undone(self) -> Option<R> {
        match self {
            Self::Undone(result) => Some(result),
            Self::Refused | Self::CalledOff => None,
        }
    }
}

/// What an effect that is to be undone brought; else why there is nothing to undo, and from now on never will be.
pub(super) async fn undoable<D: DeserializeOwned, R>(
    effects: &Effects,
    name: &str,
) -> Result<Result<D, Compensated<R>>, EffectError> {
    let operation = effects.operation.clone();
    let held = effects.shared.ledger.call_off(operation, name.to_owned(), CALLED_OFF).await?;
    let effect = held.effect;
    let not_known =
        |again_in| EffectError::NotKnown { effect: effect.clone(), state: held.state, again_in };
    match held.state {
        State::Done => serde_json::from_str(held.result.as_deref().unwrap_or("null"))
            .map(Ok)
            .map_err(|source| EffectError::Unreadable { effect, source }),
        // An attempt has said since that it was done after all.
        State::Failed if held.late => Err(not_known(DECISION)),
        State::Failed if held.error == CALLED_OFF => Ok(Err(Compensated::CalledOff)),
        State::Failed => Ok(Err(Compensated::Refused)),
        State::Attempted => Err(not_known(held.lease.map_or(DECISION, span))),
        // Known the sooner somebody asks; whoever waits is told.
        State::Intended | State::Unknown => Err(not_known(DECISION)),
    }
}
