use std::time::Duration;

use diesel::QueryResult;
use diesel::connection::LoadConnection;

use crate::Consumer;
use crate::park::NewParked;
use crate::store::{First, Operation, Parked, Row};
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
            ) -> QueryResult<()> {
                crate::store::$store::operation::store_result(conn, row, json)
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
        }
    };
}

backend!("postgres", diesel::pg::Pg, postgres);
backend!("sqlite", diesel::sqlite::Sqlite, sqlite);
