use std::time::Duration;

use diesel::QueryResult;
use diesel::connection::LoadConnection;
use message::OperationKey;

use crate::Consumer;
use crate::park::NewParked;
use crate::parking::Parking;
use crate::retention::Dropped;
use crate::store::retry::{Due, Lease, Start};
use crate::store::{First, Operation, OperationVerdict, Parked, Row};

mod sealed {
    pub trait Sealed {}
    #[cfg(feature = "postgres")]
    impl Sealed for diesel::pg::Pg {}
    #[cfg(feature = "sqlite")]
    impl Sealed for diesel::sqlite::Sqlite {}
}

/// A trait over the two databases whose functions are those of the stores, each named with the file that
/// holds it.
macro_rules! stores {
    (
        $(#[$doc:meta])*
        trait $trait:ident: $($bound:path),+;
        $(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $file:ident;)+
    ) => {
        $(#[$doc])*
        pub trait $trait: $($bound +)+ Sized {
            $(#[doc(hidden)]
            fn $name<C: diesel::connection::LoadConnection<Backend = Self>>(
                conn: &mut C,
                $($arg: $ty),*
            ) -> diesel::QueryResult<$out>;)+
        }

        $crate::backend::stores!(@ "postgres", diesel::pg::Pg, postgres, $trait; $(fn $name($($arg: $ty),*) -> $out = $file;)+);
        $crate::backend::stores!(@ "sqlite", diesel::sqlite::Sqlite, sqlite, $trait; $(fn $name($($arg: $ty),*) -> $out = $file;)+);
    };
    (@ $feature:literal, $backend:ty, $store:ident, $trait:ident; $(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $file:ident;)+) => {
        #[cfg(feature = $feature)]
        impl $trait for $backend {
            $(fn $name<C: diesel::connection::LoadConnection<Backend = Self>>(
                conn: &mut C,
                $($arg: $ty),*
            ) -> diesel::QueryResult<$out> {
                $crate::store::$store::$file::$name(conn, $($arg),*)
            })+
        }
    };
}
pub(crate) use stores;

/// What takes a closure, and fits no table of functions.
pub trait WaitingBackend: diesel::backend::Backend + Sized {
    #[doc(hidden)]
    fn waiting_at_most<C: LoadConnection<Backend = Self>, T>(
        conn: &mut C,
        wait: Duration,
        work: impl FnOnce(&mut C) -> QueryResult<T>,
    ) -> QueryResult<Option<T>>;
}

macro_rules! waiting {
    ($feature:literal, $backend:ty, $store:ident) => {
        #[cfg(feature = $feature)]
        impl WaitingBackend for $backend {
            fn waiting_at_most<C: LoadConnection<Backend = Self>, T>(
                conn: &mut C,
                wait: Duration,
                work: impl FnOnce(&mut C) -> QueryResult<T>,
            ) -> QueryResult<Option<T>> {
                crate::store::$store::operation::waiting_at_most(conn, wait, work)
            }
        }
    };
}
waiting!("postgres", diesel::pg::Pg, postgres);
waiting!("sqlite", diesel::sqlite::Sqlite, sqlite);

stores! {
    /// A database an inbox can live in: `Pg` or `Sqlite`. Sealed; any diesel connection on one of them (a
    /// pooled one too) can be used.
    #[diagnostic::on_unimplemented(
        message = "no inbox on `{Self}`",
        note = "the crate `counterfoil-inbox` has the features `postgres` and `sqlite`, none of them by default"
    )]
    trait InboxBackend: diesel::backend::Backend, sealed::Sealed, WaitingBackend, crate::admin::AdminBackend, crate::effect::EffectBackend, crate::rebuild::GenerationBackend, crate::transition::TransitionBackend;
    fn claim(row: &Row<'_>) -> bool = operation;
    fn withdraw(row: &Row<'_>) -> () = operation;
    fn store_result(row: &Row<'_>, json: &str, verdict: OperationVerdict) -> () = operation;
    fn count_repeat(row: &Row<'_>) -> Option<First> = operation;
    fn operation(consumer: Consumer<'_>, operation: &OperationKey) -> Option<Operation> = operation;
    fn park(parked: &NewParked<'_>) -> i64 = parked;
    fn parked(consumer: Consumer<'_>, after: i64, limit: i64) -> Vec<Parked> = parked;
    fn take_due(consumer: Consumer<'_>, lease: i64, limit: i64) -> Vec<Due> = retry;
    fn resolve(lease: &Lease) -> bool = retry;
    fn put_back(lease: &Lease, parking: &Parking) -> bool = retry;
    fn begin(lease: &Lease, length: i64) -> bool = retry;
    fn renew(lease: &Lease, length: i64) -> bool = retry;
    fn untake(lease: &Lease, begun: bool, pause: i64) -> () = retry;
    fn look(consumer: Consumer<'_>, digest: &[u8]) -> Start = retry;
    fn start(consumer: Consumer<'_>, digest: &[u8]) -> () = retry;
    fn finish(consumer: Consumer<'_>, digest: &[u8]) -> () = retry;
    fn pass_time(consumer: Consumer<'_>, time: i64) -> () = retry;
    fn head_of_key(consumer: Consumer<'_>, key: &str, skip: bool) -> Option<i64> = order;
    fn promote(consumer: Consumer<'_>, key: &str, skip: bool) -> bool = order;
    fn promote_all(consumer: Consumer<'_>, skip: bool) -> usize = order;
    fn disband(consumer: Consumer<'_>) -> usize = order;
    fn claim_all(consumer: Consumer<'_>, claims: &str) -> Vec<(String, String)> = batch;
    fn store_results(consumer: Consumer<'_>, results: &str) -> usize = batch;
    fn delete_operations(consumer: Consumer<'_>, window: i64, rows: i64) -> i64 = retention;
    fn drop_results(consumer: Consumer<'_>, window: i64, from: i64, rows: i64) -> Dropped = retention;
    fn delete_starts(consumer: Consumer<'_>, window: i64, rows: i64) -> i64 = retention;
    fn delete_parked(consumer: Consumer<'_>, window: i64, rows: i64) -> i64 = retention;
    fn blocked_keys(consumer: Consumer<'_>, keys: &str, skip: bool) -> Vec<String> = batch;
}
