use bytes::Bytes;
use diesel::QueryResult;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text};
use message::Headers;

use super::parked::state;
use super::retry::known;
use super::statement::Bind;
use super::{time, unreadable};
use crate::Reason;
use crate::admin::{AuditEntry, ParkedCount, ParkedInfo, Picked, Selection};

/// The values of a selection, as both twins name them: each once to see whether it restricts.
pub(super) fn fitting<'a>(which: &'a Selection, ids: Option<&'a str>) -> [Bind<'a>; 12] {
    let state = which.state.map(crate::ParkedState::as_str);
    let reason = which.reason.map(Reason::as_str);
    let (consumer, key) = (which.consumer.as_deref(), which.key.as_deref());
    [
        Bind::MaybeText(ids),
        Bind::MaybeText(ids),
        Bind::MaybeText(consumer),
        Bind::MaybeText(consumer),
        Bind::MaybeText(state),
        Bind::MaybeText(state),
        Bind::MaybeText(reason),
        Bind::MaybeText(reason),
        Bind::MaybeText(key),
        Bind::MaybeText(key),
        Bind::BigInt(which.after),
        Bind::BigInt(i64::from(which.limit)),
    ]
}

pub(super) type InfoColumns = (
    (BigInt, Text, Text, Text, Text, Integer, Integer, BigInt),
    (Nullable<Text>, Nullable<Text>, Nullable<Text>, Nullable<Text>, Nullable<Text>),
    (Text, Text, BigInt),
    (BigInt, BigInt, Nullable<BigInt>, Bool),
);
type About = (i64, String, String, String, String, i32, i32, i64);
type Names = (Option<String>, Option<String>, Option<String>, Option<String>, Option<String>);
type Address = (String, String, i64);
type Times = (i64, i64, Option<i64>, bool);
pub(super) type InfoValues = (About, Names, Address, Times);

pub(super) fn info((about, names, address, times): InfoValues) -> QueryResult<ParkedInfo> {
    let (id, consumer, in_state, reason, detail, attempts, starts, deliveries) = about;
    let (message_id, kind, scope, operation, ordering_key) = names;
    let (exchange, routing_key, bytes) = address;
    let (parked_at, last_parked_at, not_before, under_way) = times;
    Ok(ParkedInfo {
        id,
        consumer,
        state: state(&in_state)?,
        reason: known(&reason)?,
        detail,
        attempts,
        starts,
        deliveries,
        message_id,
        kind,
        operation: scope.zip(operation),
        ordering_key,
        exchange,
        routing_key,
        bytes,
        parked_at: time(parked_at),
        last_parked_at: time(last_parked_at),
        not_before: not_before.map(time),
        under_way,
    })
}

pub(super) fn content(
    (headers, content_type, payload): (String, Option<String>, Vec<u8>),
) -> QueryResult<(Headers, Option<String>, Bytes)> {
    let headers = Headers::from_json(&headers)
        .map_err(|error| unreadable(format!("broken headers: {error}")))?;
    Ok((headers, content_type, payload.into()))
}

pub(super) fn count(
    (consumer, in_state, reason, count, oldest): (String, String, String, i64, i64),
) -> QueryResult<ParkedCount> {
    let (state, reason) = (state(&in_state)?, known(&reason)?);
    Ok(ParkedCount { consumer, state, reason, count, oldest: time(oldest) })
}

pub(super) fn picked(
    (id, consumer, in_state, ordering_key): (i64, String, String, Option<String>),
) -> QueryResult<Picked> {
    Ok(Picked { id, consumer, state: state(&in_state)?, ordering_key })
}

pub(super) type AuditColumns = (BigInt, BigInt, Text, Text, Text, Text, Text, Text);
pub(super) type AuditValues = (i64, i64, String, String, String, String, String, String);

pub(super) fn entry(
    (id, at, actor, role, action, consumer, reason, detail): AuditValues,
) -> AuditEntry {
    AuditEntry { id, at: time(at), actor, role, action, consumer, reason, detail }
}
