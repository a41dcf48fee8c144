use diesel::QueryResult;
use diesel::sql_types::{BigInt, Binary, Bool, Integer, Nullable, Text};
use message::{Fingerprint, OperationKey};

use super::statement::Bind;
use super::{fingerprint, unreadable};
use crate::Consumer;
use crate::effect::{Held, Policy, ProviderKey, State};

/// An effect's first row.
#[derive(Debug)]
pub struct NewEffect<'a> {
    pub(crate) consumer: Consumer<'a>,
    pub(crate) operation: &'a OperationKey,
    pub(crate) effect: &'a str,
    pub(crate) key: ProviderKey,
    pub(crate) fingerprint: Option<&'a Fingerprint>,
    pub(crate) policy: Policy,
    pub(crate) first: First<'a>,
}

/// How an effect begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum First<'a> {
    /// Somebody is about to call, for so many microseconds at most.
    Attempted { owner: &'a str, lease: i64 },
    /// Its compensation came before it.
    CalledOff { reason: &'a str },
}

impl<'a> First<'a> {
    const fn state(self) -> State {
        match self {
            Self::Attempted { .. } => State::Attempted,
            Self::CalledOff { .. } => State::Failed,
        }
    }

    const fn owner(self) -> &'a str {
        match self {
            Self::Attempted { owner, .. } => owner,
            Self::CalledOff { .. } => "",
        }
    }

    const fn error(self) -> &'a str {
        match self {
            Self::Attempted { .. } => "",
            Self::CalledOff { reason } => reason,
        }
    }

    const fn lease(self) -> Option<i64> {
        match self {
            Self::Attempted { lease, .. } => Some(lease),
            Self::CalledOff { .. } => None,
        }
    }

    const fn attempts(self) -> i32 {
        match self {
            Self::Attempted { .. } => 1,
            Self::CalledOff { .. } => 0,
        }
    }
}

/// The values of a first row, as both twins name them. `key` is the row's.
pub(super) fn first_values<'a>(row: &NewEffect<'a>, key: &'a str) -> [Bind<'a>; 15] {
    let called_off = matches!(row.first, First::CalledOff { .. });
    let attempts = row.first.attempts();
    [
        Bind::Text(row.consumer.0),
        Bind::Text(row.operation.scope()),
        Bind::Text(row.operation.id()),
        Bind::Text(row.effect),
        Bind::Text(key),
        Bind::MaybeBytes(row.fingerprint.map(|fingerprint| &fingerprint.as_bytes()[..])),
        Bind::Text(row.policy.as_str()),
        Bind::Text(row.first.state().as_str()),
        Bind::Integer(attempts),
        Bind::BigInt(i64::from(attempts)),
        Bind::Text(row.first.owner()),
        Bind::MaybeBigInt(row.first.lease()),
        Bind::Text(row.first.error()),
        Bind::Bool(!called_off),
        Bind::Bool(called_off),
    ]
}

/// The columns of [`Held`], as both twins select them.
pub(super) type HeldColumns = (
    (BigInt, Text, Text, Text, Text),
    (Text, Nullable<Binary>, Text, Text),
    (Integer, BigInt, Text, Nullable<BigInt>, Integer, Nullable<BigInt>),
    (Nullable<Text>, Text),
    (Bool, Bool, Bool, Nullable<Text>, Bool, Nullable<BigInt>),
);
type Names = (i64, String, String, String, String);
type Request = (String, Option<Vec<u8>>, String, String);
type Progress = (i32, i64, String, Option<i64>, i32, Option<i64>);
type Ending = (Option<String>, String);
type Doubts = (bool, bool, bool, Option<String>, bool, Option<i64>);
pub(super) type HeldValues = (Names, Request, Progress, Ending, Doubts);

pub(super) fn held((names, request, progress, ending, doubts): HeldValues) -> QueryResult<Held> {
    let (id, consumer, scope, operation, effect) = names;
    let (key, asked_for, policy, in_state) = request;
    let (attempts, epoch, owner, lease, asks, ask_in) = progress;
    let (result, error) = ending;
    let (doubt, review, late, late_result, decided, age) = doubts;
    Ok(Held {
        id,
        consumer,
        scope,
        operation,
        effect,
        key: provider_key(&key)?,
        fingerprint: asked_for.map(fingerprint).transpose()?,
        policy: self::policy(&policy)?,
        state: state(&in_state)?,
        attempts,
        epoch,
        owner,
        lease,
        asks,
        ask_in,
        result,
        error,
        doubt,
        review,
        late,
        late_result,
        decided,
        age,
    })
}

/// The values of a row that is written back under the epoch that it was locked with, as both twins name them.
pub(super) fn held_values(held: &Held, epoch: i64) -> [Bind<'_>; 19] {
    let state = held.state.as_str();
    [
        Bind::Text(state),
        Bind::Text(held.policy.as_str()),
        Bind::MaybeBytes(held.fingerprint.as_ref().map(|fingerprint| &fingerprint.as_bytes()[..])),
        Bind::Integer(held.attempts),
        Bind::Integer(held.attempts),
        Bind::BigInt(held.epoch),
        Bind::Text(&held.owner),
        Bind::MaybeBigInt(held.lease),
        Bind::Integer(held.asks),
        Bind::MaybeBigInt(held.ask_in),
        Bind::MaybeText(held.result.as_deref()),
        Bind::Text(&held.error),
        Bind::Bool(held.doubt),
        Bind::Bool(held.review),
        Bind::Bool(matches!(held.state, State::Done | State::Failed)),
        Bind::Bool(held.late),
        Bind::MaybeText(held.late_result.as_deref()),
        Bind::BigInt(held.id),
        Bind::BigInt(epoch),
    ]
}

pub(super) fn state(text: &str) -> QueryResult<State> {
    State::from_stored(text).ok_or_else(|| unreadable(format!("the state {text:?} of an effect")))
}

pub(super) fn policy(text: &str) -> QueryResult<Policy> {
    Policy::from_stored(text).ok_or_else(|| unreadable(format!("the policy {text:?}")))
}

pub(super) fn provider_key(text: &str) -> QueryResult<ProviderKey> {
    ProviderKey::from_stored(text).ok_or_else(|| unreadable(format!("the provider key {text:?}")))
}
