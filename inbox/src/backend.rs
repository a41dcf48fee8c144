use std::time::Duration;

use diesel::QueryResult;
use diesel::connection::LoadConnection;

use crate::Consumer;
use crate::park::NewParked;
use crate::parking::Parking;
use crate::store::retry::{Due, Lease, Start};
use crate::store::{First, Operation, OperationVerdict, Parked, Row};
use message::OperationKey;

/// A database an inbox can live in: `Pg` or `Sqlite`. Sealed; any diesel connection on one of them (a
/// pooled one too) can be used.
pub trait InboxBackend: diesel::backend::Backend + sealed::Sealed + Sized {
    #[doc(hidden)]
    fn claim<C: LoadConnection<Backend = Self>>(conn: &mut C, row: &Row<'_>) -> QueryResult<bool>;

    #[doc(hidden)]
    fn withdraw<C: LoadConnection<Backend = Self>>(conn: &mut C, row: &Row<'_>) -> QueryResult<()>;

    #[doc(hidden)]
    fn store_result<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        row: &Row<'_>,
        json: &str,
        verdict: OperationVerdict,
    ) -> QueryResult<()>;

    #[doc(hidden)]
    fn count_repeat<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        row: &Row<'_>,
    ) -> QueryResult<Option<First>>;

    #[doc(hidden)]
    fn waiting_at_most<C: LoadConnection<Backend = Self>, T>(
        conn: &mut C,
        wait: Duration,
        work: impl FnOnce(&mut C) -> QueryResult<T>,
    ) -> QueryResult<Option<T>>;

    #[doc(hidden)]
    fn operation<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
        operation: &OperationKey,
    ) -> QueryResult<Option<Operation>>;

    #[doc(hidden)]
    fn park<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        parked: &NewParked<'_>,
    ) -> QueryResult<i64>;

    #[doc(hidden)]
    fn parked<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
        after: i64,
        limit: i64,
    ) -> QueryResult<Vec<Parked>>;

    #[doc(hidden)]
    fn take_due<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
        lease: i64,
        limit: i64,
    ) -> QueryResult<Vec<Due>>;

    #[doc(hidden)]
    fn resolve<C: LoadConnection<Backend = Self>>(conn: &mut C, lease: &Lease)
    -> QueryResult<bool>;

    #[doc(hidden)]
    fn put_back<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        lease: &Lease,
        parking: &Parking,
    ) -> QueryResult<bool>;

    #[doc(hidden)]
    fn untake<C: LoadConnection<Backend = Self>>(conn: &mut C, lease: &Lease) -> QueryResult<()>;

    #[doc(hidden)]
    fn start<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
        digest: &[u8],
    ) -> QueryResult<Start>;

    #[doc(hidden)]
    fn finish<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
        digest: &[u8],
    ) -> QueryResult<()>;

    #[doc(hidden)]
    fn head_of_key<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
        key: &str,
        skip: bool,
    ) -> QueryResult<Option<i64>>;

    #[doc(hidden)]
    fn promote<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
        key: &str,
        skip: bool,
    ) -> QueryResult<bool>;

    #[doc(hidden)]
    fn promote_all<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
        skip: bool,
    ) -> QueryResult<usize>;

    #[doc(hidden)]
    fn disband<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
    ) -> QueryResult<usize>;

    #[doc(hidden)]
    fn pass_time<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
        time: i64,
    ) -> QueryResult<()>;

    #[doc(hidden)]
    fn claim_all<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
        claims: &str,
    ) -> QueryResult<Vec<(String, String)>>;

    #[doc(hidden)]
    fn store_results<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
        results: &str,
    ) -> QueryResult<usize>;

    #[doc(hidden)]
    fn blocked_keys<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        consumer: Consumer<'_>,
        keys: &str,
        skip: bool,
    ) -> QueryResult<Vec<String>>;
}

mod sealed {
    pub trait Sealed {}
    #[cfg(feature = "postgres")]
    impl Sealed for diesel::pg::Pg {}
    #[cfg(feature = "sqlite")]
    impl Sealed for diesel::sqlite::Sqlite {}
}

macro_rules! backend {
    ($feature:literal, $backend:ty, $store:ident) => {
        #[cfg(feature = $feature)]
        impl InboxBackend for $backend {
            fn claim<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                row: &Row<'_>,
            ) -> QueryResult<bool> {
                crate::store::$store::operation::claim(conn, row)
            }

            fn withdraw<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                row: &Row<'_>,
            ) -> QueryResult<()> {
                crate::store::$store::operation::withdraw(conn, row)
            }

            fn store_result<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                row: &Row<'_>,
                json: &str,
                verdict: OperationVerdict,
            ) -> QueryResult<()> {
                crate::store::$store::operation::store_result(conn, row, json, verdict)
            }

            fn count_repeat<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                row: &Row<'_>,
            ) -> QueryResult<Option<First>> {
                crate::store::$store::operation::count_repeat(conn, row)
            }

            fn waiting_at_most<C: LoadConnection<Backend = Self>, T>(
                conn: &mut C,
                wait: Duration,
                work: impl FnOnce(&mut C) -> QueryResult<T>,
            ) -> QueryResult<Option<T>> {
                crate::store::$store::operation::waiting_at_most(conn, wait, work)
            }

            fn operation<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
                operation: &OperationKey,
            ) -> QueryResult<Option<Operation>> {
                crate::store::$store::operation::operation(conn, consumer, operation)
            }

            fn park<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                parked: &NewParked<'_>,
            ) -> QueryResult<i64> {
                crate::store::$store::parked::park(conn, parked)
            }

            fn parked<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
                after: i64,
                limit: i64,
            ) -> QueryResult<Vec<Parked>> {
                crate::store::$store::parked::parked(conn, consumer, after, limit)
            }

            fn take_due<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
                lease: i64,
                limit: i64,
            ) -> QueryResult<Vec<Due>> {
                crate::store::$store::retry::take_due(conn, consumer, lease, limit)
            }

            fn resolve<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                lease: &Lease,
            ) -> QueryResult<bool> {
                crate::store::$store::retry::resolve(conn, lease)
            }

            fn put_back<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                lease: &Lease,
                parking: &Parking,
            ) -> QueryResult<bool> {
                crate::store::$store::retry::put_back(conn, lease, parking)
            }

            fn untake<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                lease: &Lease,
            ) -> QueryResult<()> {
                crate::store::$store::retry::untake(conn, lease)
            }

            fn start<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
                digest: &[u8],
            ) -> QueryResult<Start> {
                crate::store::$store::retry::start(conn, consumer, digest)
            }

            fn finish<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
                digest: &[u8],
            ) -> QueryResult<()> {
                crate::store::$store::retry::finish(conn, consumer, digest)
            }

            fn head_of_key<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
                key: &str,
                skip: bool,
            ) -> QueryResult<Option<i64>> {
                crate::store::$store::order::head_of_key(conn, consumer, key, skip)
            }

            fn promote<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
                key: &str,
                skip: bool,
            ) -> QueryResult<bool> {
                crate::store::$store::order::promote(conn, consumer, key, skip)
            }

            fn promote_all<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
                skip: bool,
            ) -> QueryResult<usize> {
                crate::store::$store::order::promote_all(conn, consumer, skip)
            }

            fn disband<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
            ) -> QueryResult<usize> {
                crate::store::$store::order::disband(conn, consumer)
            }

            fn pass_time<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
                time: i64,
            ) -> QueryResult<()> {
                crate::store::$store::retry::pass_time(conn, consumer, time)
            }

            fn claim_all<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
                claims: &str,
            ) -> QueryResult<Vec<(String, String)>> {
                crate::store::$store::batch::claim_all(conn, consumer, claims)
            }

            fn store_results<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
                results: &str,
            ) -> QueryResult<usize> {
                crate::store::$store::batch::store_results(conn, consumer, results)
            }

            fn blocked_keys<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                consumer: Consumer<'_>,
                keys: &str,
                skip: bool,
            ) -> QueryResult<Vec<String>> {
                crate::store::$store::batch::blocked_keys(conn, consumer, keys, skip)
            }
        }
    };
}

backend!("postgres", diesel::pg::Pg, postgres);
backend!("sqlite", diesel::sqlite::Sqlite, sqlite);
