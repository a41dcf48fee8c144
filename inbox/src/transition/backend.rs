use diesel::QueryResult;
use diesel::connection::LoadConnection;

use crate::store::{Move, NewTransition, Standing, Transition};

/// What a database does for state machines; part of [`InboxBackend`](crate::InboxBackend).
pub trait TransitionBackend: diesel::backend::Backend + Sized {
    #[doc(hidden)]
    fn standing<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        machine: &str,
        entity: &str,
    ) -> QueryResult<Option<Standing>>;

    #[doc(hidden)]
    fn first_move<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        to: &Move<'_>,
    ) -> QueryResult<bool>;

    #[doc(hidden)]
    fn next_move<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        to: &Move<'_>,
    ) -> QueryResult<bool>;

    #[doc(hidden)]
    fn record<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        row: &NewTransition<'_>,
    ) -> QueryResult<()>;

    #[doc(hidden)]
    fn history<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        machine: &str,
        entity: &str,
        after: i64,
        limit: i64,
    ) -> QueryResult<Vec<Transition>>;
}

macro_rules! backend {
    ($feature:literal, $backend:ty, $store:ident) => {
        #[cfg(feature = $feature)]
        impl TransitionBackend for $backend {
            fn standing<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                machine: &str,
                entity: &str,
            ) -> QueryResult<Option<Standing>> {
                crate::store::$store::transition::standing(conn, machine, entity)
            }

            fn first_move<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                to: &Move<'_>,
            ) -> QueryResult<bool> {
                crate::store::$store::transition::first_move(conn, to)
            }

            fn next_move<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                to: &Move<'_>,
            ) -> QueryResult<bool> {
                crate::store::$store::transition::next_move(conn, to)
            }

            fn record<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                row: &NewTransition<'_>,
            ) -> QueryResult<()> {
                crate::store::$store::transition::record(conn, row)
            }

            fn history<C: LoadConnection<Backend = Self>>(
                conn: &mut C,
                machine: &str,
                entity: &str,
                after: i64,
                limit: i64,
            ) -> QueryResult<Vec<Transition>> {
                crate::store::$store::transition::history(conn, machine, entity, after, limit)
            }
        }
    };
}

backend!("postgres", diesel::pg::Pg, postgres);
backend!("sqlite", diesel::sqlite::Sqlite, sqlite);
