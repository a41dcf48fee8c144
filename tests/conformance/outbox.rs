//! What an outbox store must do, on each of them.

use std::time::Duration;

use diesel::{Connection, PgConnection, SqliteConnection};
use message::MessageId;
use outbox::admin::AdminStore;
use outbox::reader::{Claim, Filter, Lease, Position, ReadLimit};
use outbox::{Draft, OutboxBackend};
use support::database::Database;
use support::events::Fact;

macro_rules! on_every_store {
    ($($scenario:ident),+ $(,)?) => {
        mod postgres { $(#[test] fn $scenario() { super::$scenario::<super::super::Postgres>(); })+ }
        mod sqlite { $(#[test] fn $scenario() { super::$scenario::<super::super::Sqlite>(); })+ }
    };
}

mod administered;
mod cursor;
mod diesel_async;
mod enqueue;
mod holds;
mod identity;
mod purge;
mod rebase;
mod replayed;
mod wakeup;

/// A store under test: a migrated database, and what its SQL calls things.
trait Store {
    type Conn: AdminStore + diesel::connection::LoadConnection<Backend: OutboxBackend>;
    fn database() -> Database;
    fn connect(database: &Database) -> Self::Conn;
    /// A literal of `n` bytes of payload.
    fn bytes(n: usize) -> String;
}

struct Postgres;
impl Store for Postgres {
    type Conn = PgConnection;
    fn database() -> Database {
        Database::postgres()
    }
    fn connect(database: &Database) -> PgConnection {
        database.pg()
    }
    fn bytes(n: usize) -> String {
        format!("convert_to(repeat('x', {n}), 'UTF8')")
    }
}

struct Sqlite;
impl Store for Sqlite {
    type Conn = SqliteConnection;
    fn database() -> Database {
        Database::sqlite()
    }
    fn connect(database: &Database) -> SqliteConnection {
        let mut conn = SqliteConnection::establish(&database.url).expect("opens");
        db::Backend::prepare(&mut conn, &db::Settings::default()).expect("guards");
        conn
    }
    fn bytes(n: usize) -> String {
        format!("zeroblob({n})")
    }
}

const LIMIT: ReadLimit = ReadLimit { rows: 100, bytes: 1 << 20 };
const TTL: Duration = Duration::from_secs(60);

/// Everything passes.
const ALL: Filter = Filter { kinds: None, exchanges: None };

fn claim(conn: &mut impl AdminStore, owner: &str, ttl: Duration) -> (Lease, Position) {
    match conn.claim("relay", owner, ttl).expect("claims") {
        Claim::Taken(lease, position) => (lease, position),
        other => panic!("{other:?}"),
    }
}

fn enqueue_facts<S: Store>(conn: &mut S::Conn, facts: &[Fact]) -> Vec<MessageId> {
    db::Backend::write(conn, |tx| outbox::enqueue_all(tx, facts.iter().map(Draft::of)))
        .expect("enqueues")
}

fn numbers(chunk: &outbox::reader::Chunk) -> Vec<i64> {
    chunk.entries.iter().map(|entry| Fact::from_payload(&entry.message.payload).number).collect()
}
