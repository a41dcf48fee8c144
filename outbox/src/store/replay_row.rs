use std::time::Duration;

use diesel::QueryableByName;
use diesel::result::{Error, QueryResult};
use diesel::sql_types::{BigInt, Bool, Nullable, Text};

use crate::admin::{AdminError, Holder};
use crate::replay::{Fenced, NewReplay, ReplayInfo, ReplayJob, ReplayPlan, ReplayState, Selection};
use crate::row::time_of;

/// A row of `outbox_replays`, times in microseconds since 1970.
#[derive(QueryableByName)]
pub(crate) struct Row {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    consumer: String,
    #[diesel(sql_type = Text)]
    queue: String,
    #[diesel(sql_type = Bool)]
    forced: bool,
    #[diesel(sql_type = Text)]
    selection: String,
    #[diesel(sql_type = BigInt)]
    rate: i64,
    #[diesel(sql_type = BigInt)]
    first_kept: i64,
    #[diesel(sql_type = BigInt)]
    total: i64,
    #[diesel(sql_type = BigInt)]
    sent: i64,
    #[diesel(sql_type = BigInt)]
    unsendable: i64,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Text)]
    last_error: String,
    #[diesel(sql_type = Nullable<Text>)]
    owner: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    remaining: Option<i64>,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = Text)]
    actor: String,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = BigInt)]
    started_at: i64,
    #[diesel(sql_type = BigInt)]
    updated_at: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    finished_at: Option<i64>,
}

impl Row {
    pub(crate) fn info(self) -> QueryResult<ReplayInfo> {
        let remaining = self.remaining.filter(|left| *left > 0).map(micros);
        Ok(ReplayInfo {
            id: self.id,
            selection: selection(self.id, &self.selection)?,
            state: ReplayState::from_stored(&self.state).ok_or_else(|| {
                unreadable(self.id, format!("the state {:?} is not known here", self.state))
            })?,
            consumer: self.consumer,
            queue: self.queue,
            forced: self.forced,
            rate: rate(self.rate),
            first_kept: self.first_kept,
            total: count(self.total),
            sent: count(self.sent),
            unsendable: count(self.unsendable),
            position: self.position,
            last_seq: self.last_seq,
            last_error: self.last_error,
            holder: self.owner.map(|owner| Holder { owner, remaining }),
            actor: self.actor,
            role: self.role,
            reason: self.reason,
            started_at: time_of(self.started_at),
            updated_at: time_of(self.updated_at),
            finished_at: self.finished_at.map(time_of),
        })
    }

    pub(crate) fn job(self, ttl: Duration) -> QueryResult<ReplayJob> {
        Ok(ReplayJob {
            id: self.id,
            selection: selection(self.id, &self.selection)?,
            consumer: self.consumer,
            queue: self.queue,
            forced: self.forced,
            rate: rate(self.rate),
            position: self.position,
            last_seq: self.last_seq,
            total: count(self.total),
            sent: count(self.sent),
            unsendable: count(self.unsendable),
            ttl,
            epoch: self.epoch,
            due: self.started_at,
        })
    }

    /// Why somebody who wanted to work on it may not.
    pub(crate) fn refusal(self) -> AdminError {
        let id = self.id;
        match self.info() {
            Err(error) => error.into(),
            Ok(ReplayInfo {
                state: state @ (ReplayState::Done | ReplayState::Cancelled), ..
            }) => AdminError::ReplayOver { id, state: state.as_str() },
            Ok(info) => {
                // Given up between the two statements: then nothing remains, and the next try has it.
                let (owner, remaining) = info.holder.map_or_else(
                    || ("somebody".to_owned(), Duration::ZERO),
                    |holder| (holder.owner, holder.remaining.unwrap_or_default()),
                );
                AdminError::ReplayHeld { id, owner, remaining }
            }
        }
    }
}

/// Whether a replay may be started as it was asked for; the span and the first place that is kept.
pub(crate) fn startable(
    new: &NewReplay,
    plan: &ReplayPlan,
) -> Result<((i64, i64), i64), AdminError> {
    new.check()?;
    let (Some(span), Some(first)) = (plan.span, plan.first_kept) else {
        return Err(AdminError::NothingSelected);
    };
    if plan.gap && !new.allow_gap {
        return Err(AdminError::HistoryGone { first_kept: first.seq });
    }
    if let (Some(missing), false) = (plan.missing_ids.first(), new.allow_gap) {
        return Err(AdminError::MissingIds { count: plan.missing_ids.len(), first: *missing });
    }
    Ok((span, first.seq))
}

#[derive(QueryableByName)]
pub(crate) struct Standing {
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

impl Standing {
    /// Why a fenced write changed nothing.
    pub(crate) fn fenced(found: Option<Self>, job: &ReplayJob) -> Fenced {
        match found {
            Some(standing) if standing.epoch == job.epoch => {
                if standing.state == ReplayState::Cancelled.as_str() {
                    Fenced::Cancelled
                } else {
                    Fenced::Lost
                }
            }
            Some(_) | None => Fenced::Lost,
        }
    }
}

fn selection(id: i64, json: &str) -> QueryResult<Selection> {
    Selection::from_json(json).map_err(|error| {
        unreadable(id, format!("its selection is of a later release than this program: {error}"))
    })
}

fn unreadable(id: i64, what: String) -> Error {
    Error::DeserializationError(format!("replay {id}: {what}").into())
}

fn rate(stored: i64) -> u32 {
    u32::try_from(stored).unwrap_or(1).max(1)
}

fn count(stored: i64) -> u64 {
    stored.max(0).unsigned_abs()
}

fn micros(left: i64) -> Duration {
    Duration::from_micros(left.unsigned_abs())
}
