use std::convert::Infallible;
use std::time::Duration;

use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
use db::classify;

use super::backend::HttpConnection;
use super::front::{Idempotency, remedy};
use super::problem::Problem;
use crate::effect::EffectError;

/// A person's decision takes its time.
const DECISION: Duration = Duration::from_secs(60);

/// Part of a response that the [layer](super::IdempotencyLayer) is not to keep, whatever its status: the key is
/// free, and a repeat runs the handler. For answers that hold for the moment only.
///
/// ```
/// # use axum::http::StatusCode;
/// # use axum::response::{IntoResponse, Response};
/// # use inbox::http::Unkept;
/// async fn closed() -> Response {
///     (StatusCode::CONFLICT, Unkept, "we open at nine").into_response()
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unkept;

impl Unkept {
    pub(crate) fn is_in(response: &Response) -> bool {
        response.extensions().get::<Self>().is_some()
    }
}

impl IntoResponseParts for Unkept {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        parts.extensions_mut().insert(self);
        Ok(parts)
    }
}

impl<C: HttpConnection> Idempotency<C> {
    /// The answer to a request whose effect has no result to go on with, as a problem of the published policy.
    ///
    /// It is [`Unkept`]: the ledger remembers what became of the effect, and a repeat with the same key asks that. An
    /// answer of your own (402 for a card that was declined, say) should be as well, or a decision about the effect
    /// does not reach the client.
    ///
    /// | The effect | Answer |
    /// |---|---|
    /// | is under way, asked about, to be repeated, certainly not performed, or the ledger is away | 503 `#unknown-outcome` with `Retry-After` |
    /// | waits for a person | 503 `#in-review` with `Retry-After` |
    /// | was asked for with another request | 422 `#mismatch` |
    /// | was refused | 422 `#refused` |
    /// | has a name, request or result that cannot be used | 500 `#interrupted`, and the log says why |
    #[must_use]
    pub fn effect_failed(&self, error: &EffectError) -> Response {
        let policy = &self.shared.policy;
        let later = |problem: Problem, after| problem.reply_later(policy, after);
        let reply = match error {
            EffectError::UnderWay { again_in, .. }
            | EffectError::Asking { again_in, .. }
            | EffectError::NotKnown { again_in, .. } => later(Problem::Unknown, *again_in),
            EffectError::Review { .. } => later(Problem::InReview, DECISION),
            // Not "nothing was done": the handler may have had another effect before this one.
            EffectError::NotDone { .. } | EffectError::Repeat { .. } => {
                Problem::Unknown.reply(policy)
            }
            EffectError::Database(cause) => {
                let remedy = remedy(classify(cause)).unwrap_or("wait");
                tracing::error!(policy = policy.name, reason = %error, remedy, "no ledger of effects");
                Problem::Unknown.reply(policy)
            }
            EffectError::Unavailable { .. } => {
                tracing::warn!(policy = policy.name, reason = %error, "the ledger of effects is away");
                Problem::Unknown.reply(policy)
            }
            EffectError::Conflict { .. } => Problem::reply_to_conflict(policy),
            EffectError::Refused { .. } => Problem::Refused.reply(policy),
            EffectError::Invalid(_)
            | EffectError::Unwritable { .. }
            | EffectError::Unreadable { .. } => {
                tracing::error!(policy = policy.name, reason = %error, "an effect cannot be used");
                Problem::Interrupted.reply(policy)
            }
        };
        (Unkept, reply).into_response()
    }
}
