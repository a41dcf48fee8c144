use bytes::Bytes;
use diesel::QueryResult;
use diesel::connection::LoadConnection;
use message::Headers;

use super::{AuditEntry, ParkedCount, ParkedInfo, Picked, Selection};

macro_rules! admin_backend {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)+) => {
        /// The statements of an operator. Implemented for `Pg` and `Sqlite`; see
        /// [`InboxBackend`](crate::InboxBackend).
        pub trait AdminBackend: diesel::backend::Backend + Sized {
            $(#[doc(hidden)]
            fn $name<C: LoadConnection<Backend = Self>>(conn: &mut C, $($arg: $ty),*) -> QueryResult<$out>;)+
        }

        #[cfg(feature = "postgres")]
        impl AdminBackend for diesel::pg::Pg {
            $(fn $name<C: LoadConnection<Backend = Self>>(conn: &mut C, $($arg: $ty),*) -> QueryResult<$out> {
                crate::store::postgres::admin::$name(conn, $($arg),*)
            })+
        }

        #[cfg(feature = "sqlite")]
        impl AdminBackend for diesel::sqlite::Sqlite {
            $(fn $name<C: LoadConnection<Backend = Self>>(conn: &mut C, $($arg: $ty),*) -> QueryResult<$out> {
                crate::store::sqlite::admin::$name(conn, $($arg),*)
            })+
        }
    };
}

admin_backend! {
    fn list(which: &Selection) -> Vec<ParkedInfo>;
    fn content(id: i64) -> Option<(Headers, Option<String>, Bytes)>;
    fn counts(consumer: Option<&str>) -> Vec<ParkedCount>;
    fn pick(which: &Selection) -> Vec<Picked>;
    fn head_before(consumer: &str, key: &str, id: i64) -> Option<i64>;
    fn make_due(ids: &str) -> ();
    fn remove(ids: &str) -> ();
    fn record(ids: &str, action: &str, actor: &str, reason: &str) -> ();
    fn audit(limit: i64) -> Vec<AuditEntry>;
}
