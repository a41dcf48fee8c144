//! Ties each kind of connection to the statements of its store.

use std::time::Duration;

use diesel::QueryResult;

use super::{
    AdminError, AdminStore, AuditEntry, Backlog, Changed, CursorInfo, Facts, HoldCount, HoldInfo,
    NewCursor, Order, Purged, Rebased, Selection, Vitals,
};
use crate::reader::Foreign;

macro_rules! admin_store {
    ($connection:ty, $store:ident, { $(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $module:ident $(:: $sub:ident)?;)+ }) => {
        impl AdminStore for $connection {
            $(fn $name(&mut self, $($arg: $ty),*) -> $out {
                crate::store::$store::$module$(::$sub)?::$name(self, $($arg),*)
            })+
        }
    };
}

macro_rules! on_store {
    ($connection:ty, $store:ident) => {
        admin_store!($connection, $store, {
            fn cursors() -> QueryResult<Vec<CursorInfo>> = admin::cursors;
            fn add_cursor(new: &NewCursor, order: &Order) -> Result<(), AdminError> = admin::cursors;
            fn retire_cursor(cursor: &str, force: bool, order: &Order) -> Result<u64, AdminError> = admin::cursors;
            fn pause(cursor: &str, order: &Order) -> Result<(), AdminError> = admin::cursors;
            fn resume(cursor: &str, order: &Order) -> Result<bool, AdminError> = admin::cursors;
            fn holds(cursor: &str, which: &Selection) -> QueryResult<Vec<HoldInfo>> = admin::holds;
            fn hold_counts() -> QueryResult<Vec<HoldCount>> = admin::holds;
            fn retry_holds(cursor: &str, which: &Selection, order: &Order) -> Result<Changed, AdminError> = admin::holds;
            fn try_holds_now(cursor: &str, which: &Selection, order: &Order) -> Result<Changed, AdminError> = admin::holds;
            fn discard_holds(cursor: &str, which: &Selection, order: &Order) -> Result<Changed, AdminError> = admin::holds;
            fn set_wakeup(on: bool, order: &Order) -> Result<bool, AdminError> = wake;
            fn audit(limit: u32) -> QueryResult<Vec<AuditEntry>> = admin::audit;
            fn record(order: &Order, action: &str, cursor: Option<&str>, detail: &str) -> Result<(), AdminError> = admin::audit;
            fn purge(older_than: Duration, from: i64, rows: u32) -> QueryResult<Purged> = purge;
            fn purgeable(older_than: Duration, from: i64, rows: u32) -> QueryResult<Purged> = purge;
            fn backlog(cursor: &str, bound: u32, within: Duration) -> QueryResult<Backlog> = gauges;
            fn vitals(within: Duration) -> QueryResult<Vitals> = gauges;
            fn facts() -> QueryResult<Facts> = facts;
            fn foreign(name: &str) -> QueryResult<Option<Foreign>> = cursor;
            fn fence() -> QueryResult<Option<String>> = rebase;
            fn mark_piece(from: i64) -> QueryResult<(u64, Option<i64>)> = rebase;
            fn rebase(order: &Order) -> Result<Rebased, AdminError> = rebase;
            fn exchanges(cursor: &str, rows: u32) -> QueryResult<Vec<String>> = facts;
        });
    };
}

#[cfg(feature = "postgres")]
on_store!(diesel::PgConnection, postgres);
#[cfg(feature = "sqlite")]
on_store!(diesel::SqliteConnection, sqlite);
