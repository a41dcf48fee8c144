use diesel::QueryResult;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text};

use super::effect::{policy, provider_key, state};
use super::statement::Bind;
use super::time;
use crate::effect::State;
use crate::effect::admin::{Count, Effect, Selection};

/// The values of a selection, as both twins name them: each once to see whether it restricts.
pub(super) fn fitting(which: &Selection) -> [Bind<'_>; 12] {
    let (consumer, effect) = (which.consumer.as_deref(), which.effect.as_deref());
    let state = which.state.map(State::as_str);
    [
        Bind::MaybeBigInt(which.id),
        Bind::MaybeBigInt(which.id),
        Bind::MaybeText(consumer),
        Bind::MaybeText(consumer),
        Bind::MaybeText(effect),
        Bind::MaybeText(effect),
        Bind::MaybeText(state),
        Bind::MaybeText(state),
        Bind::Bool(which.in_review),
        Bind::Bool(which.late),
        Bind::BigInt(which.after),
        Bind::BigInt(i64::from(which.limit)),
    ]
}

pub(super) type SeenColumns = (
    (BigInt, Text, Text, Text, Text, Text, Text, Text),
    (Integer, Integer, Text, Nullable<Text>, Text),
    (BigInt, Nullable<BigInt>, Nullable<BigInt>, Nullable<BigInt>),
    (Nullable<BigInt>, Nullable<BigInt>, Nullable<BigInt>),
    (Nullable<BigInt>, Nullable<Text>, Nullable<Text>, Nullable<Text>, Nullable<BigInt>),
);
type Names = (i64, String, String, String, String, String, String, String);
type Progress = (i32, i32, String, Option<String>, String);
type Begun = (i64, Option<i64>, Option<i64>, Option<i64>);
type Ended = (Option<i64>, Option<i64>, Option<i64>);
type After = (Option<i64>, Option<String>, Option<String>, Option<String>, Option<i64>);
pub(super) type SeenValues = (Names, Progress, Begun, Ended, After);

pub(super) fn seen((names, progress, begun, ended, after): SeenValues) -> QueryResult<Effect> {
    let (id, consumer, scope, operation, effect, key, policy, in_state) = names;
    let (attempts, asks, owner, result, error) = progress;
    let (created_at, attempted_at, lease_until, ask_at) = begun;
    let (unknown_since, review_since, settled_at) = ended;
    let (late_at, late_result, decided_by, decided_why, decided_at) = after;
    Ok(Effect {
        id,
        consumer,
        scope,
        operation,
        effect,
        key: provider_key(&key)?,
        policy: self::policy(&policy)?,
        state: state(&in_state)?,
        attempts,
        asks,
        owner,
        result,
        error,
        created_at: time(created_at),
        attempted_at: attempted_at.map(time),
        lease_until: lease_until.map(time),
        ask_at: ask_at.map(time),
        unknown_since: unknown_since.map(time),
        review_since: review_since.map(time),
        settled_at: settled_at.map(time),
        late_at: late_at.map(time),
        late_result,
        decided: decided_by.zip(decided_why),
        decided_at: decided_at.map(time),
    })
}

pub(super) type CountColumns = (Text, Text, Text, Bool, BigInt, BigInt);
pub(super) type CountValues = (String, String, String, bool, i64, i64);

pub(super) fn count(
    (consumer, effect, in_state, in_review, count, oldest): CountValues,
) -> QueryResult<Count> {
    let state = state(&in_state)?;
    Ok(Count { consumer, effect, state, in_review, count, oldest: time(oldest) })
}
