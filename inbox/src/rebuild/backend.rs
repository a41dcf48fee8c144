use diesel::QueryResult;
use diesel::connection::LoadConnection;

use super::Generations;
use crate::Consumer;

macro_rules! generation_backend {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)+) => {
        /// The statements on generations. Implemented for `Pg` and `Sqlite`; see
        /// [`InboxBackend`](crate::InboxBackend).
        pub trait GenerationBackend: diesel::backend::Backend + Sized {
            $(#[doc(hidden)]
            fn $name<C: LoadConnection<Backend = Self>>(conn: &mut C, $($arg: $ty),*) -> QueryResult<$out>;)+
        }

        #[cfg(feature = "postgres")]
        impl GenerationBackend for diesel::pg::Pg {
            $(fn $name<C: LoadConnection<Backend = Self>>(conn: &mut C, $($arg: $ty),*) -> QueryResult<$out> {
                crate::store::postgres::generation::$name(conn, $($arg),*)
            })+
        }

        #[cfg(feature = "sqlite")]
        impl GenerationBackend for diesel::sqlite::Sqlite {
            $(fn $name<C: LoadConnection<Backend = Self>>(conn: &mut C, $($arg: $ty),*) -> QueryResult<$out> {
                crate::store::sqlite::generation::$name(conn, $($arg),*)
            })+
        }
    };
}

generation_backend! {
    fn begin_generation(consumer: Consumer<'_>) -> Option<i64>;
    fn mark_caught_up(consumer: Consumer<'_>, generation: i64, own: &str) -> bool;
    fn switch_generation(consumer: Consumer<'_>, generation: i64, own: &str) -> bool;
    fn abandon_generation(consumer: Consumer<'_>, generation: i64) -> bool;
    fn generations(consumer: Consumer<'_>) -> Option<Generations>;
    fn forget_generation(own: &str, batch: i64) -> usize;
    fn record_generation(consumer: Consumer<'_>, by: (&str, &str), action: &str, detail: &str) -> ();
}
