//! How a reader of the log that has nothing to do learns of the next commit.
//!
//! A commit can only be told by whoever commits, and a NOTIFY costs: until its transaction is through, with
//! the flush to disk, no other transaction of the whole cluster that notifies can commit. So a producer
//! notifies only while a reader sleeps, and decides so when it inserts, which may be long before it commits.
//! What makes that exact is a lock with two sides:
//!
//! * a reader that sleeps holds it alone. A producer that inserts meanwhile does not get its share of it, and
//!   notifies when it commits;
//! * a producer that gets its share keeps it to the end of its transaction and does not notify. As long as
//!   there is one, no reader can fall asleep; and what it commits is there for the read that a reader makes after
//!   it took the lock.
//!
//! Nobody waits: both sides only try. A reader that does not get the lock polls, as it would without all this, and
//! tries again.

use diesel::QueryResult;

/// A database that can tell of commits. All but [`TELLS`](Self::TELLS) concerns one connection that is used for
/// nothing else.
pub trait WakeStore {
    /// Whether it can at all. Where it is false nothing is ever heard.
    const TELLS: bool;

    /// Makes this connection one that hears. Asks for a session of its own: behind a transaction pooler nothing
    /// would come.
    ///
    /// # Errors
    /// What the database said.
    fn listen(&mut self) -> QueryResult<()>;

    /// Whether something was committed since this was asked last. Does not wait, and asks the database nothing.
    ///
    /// # Errors
    /// The connection is lost.
    fn heard(&mut self) -> QueryResult<bool>;

    /// Falls asleep, or makes sure of it: after true every commit of a message is heard, until
    /// [`unwatch`](Self::unwatch) or the end of the session. What was committed before is not; read once more.
    /// False where a transaction that will not tell is still open, where another reader sleeps, and where the
    /// wake-up is not turned on.
    ///
    /// # Errors
    /// What the database said.
    fn watch(&mut self) -> QueryResult<bool>;

    /// Wakes up: from now on nobody needs to tell.
    ///
    /// # Errors
    /// What the database said.
    fn unwatch(&mut self) -> QueryResult<()>;
}

macro_rules! wake_store {
    ($connection:ty, $store:path, $tells:literal) => {
        impl WakeStore for $connection {
            const TELLS: bool = $tells;

            fn listen(&mut self) -> QueryResult<()> {
                use $store as store;
                store::wake::listen(self)
            }

            fn heard(&mut self) -> QueryResult<bool> {
                use $store as store;
                store::wake::heard(self)
            }

            fn watch(&mut self) -> QueryResult<bool> {
                use $store as store;
                store::wake::watch(self)
            }

            fn unwatch(&mut self) -> QueryResult<()> {
                use $store as store;
                store::wake::unwatch(self)
            }
        }
    };
}

#[cfg(feature = "postgres")]
wake_store!(diesel::PgConnection, crate::store::postgres, true);
#[cfg(feature = "sqlite")]
wake_store!(diesel::SqliteConnection, crate::store::sqlite, false);
