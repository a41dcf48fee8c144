use std::time::Duration;

use serde::de::DeserializeOwned;

use super::held::span;
use super::{EffectError, Effects, State};

/// How long a message waits for what a person decides about; it is woken then.
const DECISION: Duration = Duration::from_secs(60);

/// What an effect brought that is to be undone; `None` where there is nothing to undo, and from now on never will be.
pub(super) async fn undoable<D: DeserializeOwned>(
    effects: &Effects,
    name: &str,
) -> Result<Option<D>, EffectError> {
    let reason = "called off: its compensation came before it was performed".to_owned();
    let operation = effects.operation.clone();
    let held = effects.shared.ledger.call_off(operation, name.to_owned(), reason).await?;
    let effect = held.effect;
    let not_known =
        |again_in| EffectError::NotKnown { effect: effect.clone(), state: held.state, again_in };
    match held.state {
        State::Done => serde_json::from_str(held.result.as_deref().unwrap_or("null"))
            .map(Some)
            .map_err(|source| EffectError::Unreadable { effect, source }),
        State::Failed => Ok(None),
        State::Attempted => Err(not_known(held.lease.map_or(DECISION, span))),
        // Known the sooner somebody asks; whoever waits is told.
        State::Intended | State::Unknown => Err(not_known(DECISION)),
    }
}
