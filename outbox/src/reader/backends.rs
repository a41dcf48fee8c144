//! Ties each kind of connection to the statements of its store.

use std::time::Duration;

use diesel::QueryResult;

use super::{
    Advance, Chunk, Claim, Due, Filter, Held, Hold, Lease, LogStore, Position, ReadLimit, Settled,
};

macro_rules! log_store {
    ($connection:ty, $store:path) => {
        impl LogStore for $connection {
            fn claim(&mut self, cursor: &str, owner: &str, ttl: Duration) -> QueryResult<Claim> {
                use $store as store;
                store::cursor::claim(self, cursor, owner, ttl)
            }

            fn renew(&mut self, lease: &Lease) -> QueryResult<Advance> {
                use $store as store;
                store::cursor::renew(self, lease)
            }

            fn release(&mut self, lease: &Lease) -> QueryResult<Advance> {
                use $store as store;
                store::cursor::release(self, lease)
            }

            fn read(
                &mut self,
                from: &Position,
                filter: &Filter,
                limit: ReadLimit,
            ) -> QueryResult<Chunk> {
                use $store as store;
                store::read::read(self, from, filter, limit)
            }

            fn advance(
                &mut self,
                lease: &Lease,
                to: &Position,
                holds: &[Hold],
            ) -> QueryResult<Advance> {
                use $store as store;
                store::cursor::advance(self, lease, to, holds)
            }

            fn due(&mut self, cursor: &str, limit: ReadLimit) -> QueryResult<Vec<Due>> {
                use $store as store;
                store::holds::due(self, cursor, limit)
            }

            fn settle(&mut self, lease: &Lease, results: &[Held]) -> QueryResult<Settled> {
                use $store as store;
                store::holds::settle(self, lease, results)
            }

            fn held_keys(&mut self, cursor: &str) -> QueryResult<Vec<String>> {
                use $store as store;
                store::holds::held_keys(self, cursor)
            }

            fn count_held(&mut self, cursor: &str) -> QueryResult<u64> {
                use $store as store;
                store::holds::count_held(self, cursor)
            }

            fn paused(&mut self, cursor: &str) -> QueryResult<Option<String>> {
                use $store as store;
                store::cursor::paused(self, cursor)
            }

            fn pending(&mut self, cursor: &str) -> QueryResult<i64> {
                use $store as store;
                store::cursor::pending(self, cursor)
            }
        }
    };
}

#[cfg(feature = "postgres")]
log_store!(diesel::PgConnection, crate::store::postgres);
#[cfg(feature = "sqlite")]
log_store!(diesel::SqliteConnection, crate::store::sqlite);
