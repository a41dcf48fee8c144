//! Ties each kind of connection to the statements of its store.

use std::time::Duration;

use diesel::QueryResult;

use super::{
    Counted, Edge, Fenced, NewReplay, ReplayEnd, ReplayInfo, ReplayJob, ReplayPiece, ReplayPlan,
    ReplayStore, Selection,
};
use crate::admin::{AdminError, Order};
use crate::reader::ReadLimit;

macro_rules! replay_store {
    ($connection:ty, $store:ident, { $(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $module:ident;)+ }) => {
        impl ReplayStore for $connection {
            $(fn $name(&mut self, $($arg: $ty),*) -> $out {
                crate::store::$store::replay::$module::$name(self, $($arg),*)
            })+
        }
    };
}

macro_rules! on_store {
    ($connection:ty, $store:ident) => {
        replay_store!($connection, $store, {
            fn first_kept() -> QueryResult<Option<Edge>> = history;
            fn count_history(selection: &Selection, from: i64, rows: u32) -> QueryResult<Counted> = history;
            fn read_history(job: &ReplayJob, from: i64, limit: ReadLimit) -> QueryResult<ReplayPiece> = history;
            fn start_replay(new: &NewReplay, plan: &ReplayPlan, owner: &str, ttl: Duration, order: &Order) -> Result<ReplayJob, AdminError> = record;
            fn resume_replay(id: i64, owner: &str, ttl: Duration, order: &Order) -> Result<ReplayJob, AdminError> = record;
            fn advance_replay(job: &ReplayJob, position: i64, sent: u64, unsendable: u64) -> QueryResult<Fenced> = record;
            fn end_replay(job: &ReplayJob, end: &ReplayEnd) -> QueryResult<Fenced> = record;
            fn cancel_replay(id: i64, order: &Order) -> Result<(), AdminError> = record;
            fn replays(limit: u32) -> QueryResult<Vec<ReplayInfo>> = record;
            fn replay(id: i64) -> Result<ReplayInfo, AdminError> = record;
        });
    };
}

#[cfg(feature = "postgres")]
on_store!(diesel::PgConnection, postgres);
#[cfg(feature = "sqlite")]
on_store!(diesel::SqliteConnection, sqlite);
