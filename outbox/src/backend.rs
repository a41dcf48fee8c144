use diesel::QueryResult;
use diesel::connection::LoadConnection;

use crate::row::NewRow;

/// A database an outbox can live in: `Pg` or `Sqlite`. Sealed; any diesel connection on one of them
/// (a pooled one too) can enqueue.
pub trait OutboxBackend: diesel::backend::Backend + sealed::Sealed + Sized {
    /// Inserts the rows in order, with one statement where that is faster.
    #[doc(hidden)]
    fn insert<C>(conn: &mut C, rows: &[NewRow]) -> QueryResult<()>
    where
        C: LoadConnection<Backend = Self>;

    /// Waits until no other open transaction has called this with the same key, and keeps others
    /// waiting until this transaction ends.
    #[doc(hidden)]
    fn serialize<C>(conn: &mut C, ordering_key: &str) -> QueryResult<()>
    where
        C: LoadConnection<Backend = Self>;
}

mod sealed {
    pub trait Sealed {}
    #[cfg(feature = "postgres")]
    impl Sealed for diesel::pg::Pg {}
    #[cfg(feature = "sqlite")]
    impl Sealed for diesel::sqlite::Sqlite {}
}

#[cfg(feature = "postgres")]
impl OutboxBackend for diesel::pg::Pg {
    fn insert<C: LoadConnection<Backend = Self>>(conn: &mut C, rows: &[NewRow]) -> QueryResult<()> {
        crate::store::postgres::insert(conn, rows)
    }

    fn serialize<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        ordering_key: &str,
    ) -> QueryResult<()> {
        crate::store::postgres::serialize(conn, ordering_key)
    }
}

#[cfg(feature = "sqlite")]
impl OutboxBackend for diesel::sqlite::Sqlite {
    fn insert<C: LoadConnection<Backend = Self>>(conn: &mut C, rows: &[NewRow]) -> QueryResult<()> {
        crate::store::sqlite::insert(conn, rows)
    }

    fn serialize<C: LoadConnection<Backend = Self>>(
        conn: &mut C,
        ordering_key: &str,
    ) -> QueryResult<()> {
        crate::store::sqlite::serialize(conn, ordering_key)
    }
}
