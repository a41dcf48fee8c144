//! What an outbox store must do, on each of them.

use std::time::Duration;

use db::Backend as _;
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, SqliteConnection};
use message::{Message, MessageId, TraceContext};
use outbox::reader::{
    Advance, Claim, Held, Hold, HoldReason, HoldResult, Lease, LogStore, Position, ReadLimit,
};
use outbox::{Draft, EnqueueError, OutboxBackend};
use support::database::Database;
use support::events::Fact;

/// A store under test: a migrated database, and what its SQL calls things.
trait Store {
    type Conn: LogStore + diesel::connection::LoadConnection<Backend: OutboxBackend>;
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

fn claim(conn: &mut impl LogStore, owner: &str, ttl: Duration) -> (Lease, Position) {
    match conn.claim("c", owner, ttl).expect("claims") {
        Claim::Taken(lease, position) => (lease, position),
        Claim::Busy { owner, .. } => panic!("held by {owner}"),
    }
}

fn enqueue_facts<S: Store>(conn: &mut S::Conn, facts: &[Fact]) -> Vec<MessageId> {
    conn.write(|tx| outbox::enqueue_all(tx, facts.iter().map(Draft::of))).expect("enqueues")
}

fn numbers(chunk: &outbox::reader::Chunk) -> Vec<i64> {
    chunk.entries.iter().map(|entry| Fact::from_payload(&entry.message.payload).number).collect()
}

fn an_enqueue_outside_a_transaction_is_refused<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let error = outbox::enqueue(&mut conn, &Fact::keyless(1)).expect_err("refused");
    assert!(matches!(error, EnqueueError::NoTransaction), "{error}");
    let (_, position) = claim(&mut conn, "me", TTL);
    assert!(conn.read(&position, LIMIT).expect("reads").entries.is_empty());
}

fn what_is_enqueued_is_read_as_it_was<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let trace = TraceContext::new(
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        Some("a=b".into()),
    );
    let draft = Draft::of(&Fact::of("ключ", 7))
        .exchange("x".repeat(255))
        .routing_key("")
        .header("tenant", "\"quoted\" \\ ünï\tcode")
        .source("shop")
        .caused_by("corr-1", "cause-1")
        .trace(&trace.expect("valid"));
    let binary = Message {
        content_type: "application/octet-stream".into(),
        payload: vec![0, 255, 1].into(),
        ..Message::from_event(&Fact::keyless(1)).expect("valid")
    };
    let ids = conn
        .write(|tx| outbox::enqueue_all(tx, [draft.clone(), Draft::of_message(binary.clone())]))
        .expect("enqueues");
    let alone = conn.write(|tx| draft.clone().id(MessageId::new()).enqueue(tx)).expect("enqueues");
    let (_, position) = claim(&mut conn, "me", TTL);
    let chunk = conn.read(&position, LIMIT).expect("reads");
    assert!(chunk.exhausted);
    let read: Vec<&Message> = chunk.entries.iter().map(|entry| &entry.message).collect();
    assert_eq!(read.iter().map(|m| m.id).collect::<Vec<_>>(), [ids[0], ids[1], alone]);
    for message in [read[0], read[2]] {
        assert_eq!(message.kind, "test.fact");
        assert_eq!(message.operation, "ключ-7");
        assert_eq!(message.ordering_key.as_deref(), Some("ключ"));
        assert_eq!(message.exchange, "x".repeat(255));
        assert_eq!(message.routing_key, "");
        assert_eq!(message.content_type, "application/json");
        assert_eq!(message.headers.get("tenant"), Some("\"quoted\" \\ ünï\tcode"));
        assert_eq!(message.headers.get("counterfoil-source"), Some("shop"));
        assert_eq!(message.headers.get("counterfoil-correlation-id"), Some("corr-1"));
        assert_eq!(message.headers.get("counterfoil-causation-id"), Some("cause-1"));
        assert_eq!(message.headers.get("tracestate"), Some("a=b"));
        assert_eq!(message.headers.schema_version(), Some(1));
        assert!(message.headers.fingerprint().is_some());
        assert_eq!(Fact::from_payload(&message.payload), Fact::of("ключ", 7));
        let age = message.created_at.elapsed().unwrap_or_default();
        assert!(age < Duration::from_secs(300), "{age:?}");
    }
    assert_eq!(read[1].payload, binary.payload);
    assert_eq!(read[1].content_type, "application/octet-stream");
}

fn a_rolled_back_enqueue_is_never_read<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let rolled_back: Result<(), diesel::result::Error> = conn.write(|tx| {
        outbox::enqueue(tx, &Fact::keyless(1))?;
        Err(diesel::result::Error::RollbackTransaction)
    });
    assert!(rolled_back.is_err());
    enqueue_facts::<S>(&mut conn, &[Fact::keyless(2)]);
    let (_, position) = claim(&mut conn, "me", TTL);
    assert_eq!(numbers(&conn.read(&position, LIMIT).expect("reads")), [2]);
}

fn a_limit_of_rows_and_of_bytes_is_kept<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let facts: Vec<Fact> =
        (1..=7).map(|n| Fact { filler: "x".repeat(2_000), ..Fact::keyless(n) }).collect();
    enqueue_facts::<S>(&mut conn, &facts);
    let (_, mut position) = claim(&mut conn, "me", TTL);
    let mut sizes = Vec::new();
    let mut read = Vec::new();
    for limit in [
        ReadLimit { rows: 2, bytes: 1 << 20 },
        ReadLimit { rows: 100, bytes: 6_000 },
        ReadLimit { rows: 100, bytes: 1 },
    ] {
        let chunk = conn.read(&position, limit).expect("reads");
        sizes.push((chunk.entries.len(), chunk.exhausted));
        read.extend(numbers(&chunk));
        position = chunk.next;
    }
    // Each row counts its payload of about 2,040 bytes and 512: three of them pass 6,000.
    assert_eq!(sizes, [(2, false), (3, false), (1, false)]);
    let rest = conn.read(&position, LIMIT).expect("reads");
    read.extend(numbers(&rest));
    assert_eq!(read, [1, 2, 3, 4, 5, 6, 7]);
    assert!(rest.exhausted);
    assert!(conn.read(&rest.next, LIMIT).expect("reads").entries.is_empty());
}

fn bad_rows_are_refused_by_the_table<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let good = ["'k'", "'o'", "NULL", "'e'", "NULL", "'{}'", "x"];
    let small = S::bytes(3);
    let insert = |conn: &mut S::Conn, column: usize, value: &str| {
        let mut values = good;
        values[6] = &small;
        values[column] = value;
        conn.batch_execute(&format!(
            "INSERT INTO outbox_messages (kind, operation, ordering_key, exchange, routing_key, headers, payload)
             VALUES ({})",
            values.join(", ")
        ))
    };
    let long = format!("'{}'", "x".repeat(256));
    let umlauts = format!("'{}'", "ü".repeat(128));
    let headers = format!("'{{\"h\": \"{}\"}}'", "x".repeat(65 * 1024));
    let large = S::bytes(8 * 1024 * 1024 + 1);
    for (column, value) in [
        (0, "''"),
        (0, &long[..]),
        (0, &umlauts),
        (0, "'a\u{1}b'"),
        (0, "'a\nb'"),
        (0, "NULL"),
        (1, "''"),
        (1, &long),
        (2, "''"),
        (2, &long),
        (3, "''"),
        (3, &long),
        (4, &long),
        (4, "'\u{7f}'"),
        (5, "'[]'"),
        (5, "'1'"),
        (5, "'{'"),
        (5, &headers),
        (6, &large),
        (6, "NULL"),
    ] {
        let shown: String = value.chars().take(40).collect();
        assert!(insert(&mut conn, column, value).is_err(), "column {column} took {shown}");
    }
    insert(&mut conn, 4, "''").expect("an empty routing key is fine");
    let (_, position) = claim(&mut conn, "me", TTL);
    let chunk = conn.read(&position, LIMIT).expect("reads");
    assert_eq!(chunk.entries.len(), 1);
    assert_eq!(chunk.entries[0].defect, None);
}

fn a_plain_insert_gets_every_default<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    conn.batch_execute(&format!(
        "INSERT INTO outbox_messages (kind, operation, payload) VALUES ('order.placed', 'o1', {})",
        S::bytes(2)
    ))
    .expect("inserts");
    let (_, position) = claim(&mut conn, "me", TTL);
    let chunk = conn.read(&position, LIMIT).expect("reads");
    let message = &chunk.entries[0].message;
    assert_eq!(message.exchange, "events");
    assert_eq!(message.routing_key, "order.placed");
    assert_eq!(message.content_type, "application/json");
    assert_eq!(message.id.as_uuid().get_version_num(), 4);
    assert!(message.headers.is_empty());
}

fn the_same_id_is_stored_once<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let id = MessageId::new();
    conn.write(|tx| Draft::of(&Fact::keyless(1)).id(id).enqueue(tx)).expect("enqueues");
    let again =
        conn.write(|tx| Draft::of(&Fact::keyless(1)).id(id).enqueue(tx)).expect_err("refused");
    assert!(matches!(again, EnqueueError::AlreadyEnqueued { id: named } if named == id), "{again}");
}

fn a_missing_table_is_named_with_its_remedy<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    migrations::revert_all(&mut conn).expect("reverts");
    let error = conn.write(|tx| outbox::enqueue(tx, &Fact::keyless(1))).expect_err("refused");
    assert!(matches!(error, EnqueueError::MissingTable(_)), "{error}");
    assert!(error.to_string().contains("relay migrate"), "{error}");
}

fn serialized_needs_a_key<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let error = conn
        .write(|tx| Draft::of(&Fact::keyless(1)).serialized().enqueue(tx))
        .expect_err("refused");
    assert!(matches!(error, EnqueueError::NothingToSerialize), "{error}");
    conn.write(|tx| Draft::of(&Fact::of("k", 1)).serialized().enqueue(tx)).expect("enqueues");
}

fn a_lease_has_one_holder_and_fences_the_last_one<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let (first, position) = claim(&mut conn, "first", TTL);
    match conn.claim("c", "second", TTL).expect("asks") {
        Claim::Busy { owner, remaining } => {
            assert_eq!(owner, "first");
            assert!(remaining > Duration::from_secs(50) && remaining <= TTL, "{remaining:?}");
        }
        Claim::Taken(..) => panic!("two holders"),
    }
    // Another cursor is another matter.
    assert!(matches!(conn.claim("other", "second", TTL).expect("asks"), Claim::Taken(..)));
    assert_eq!(conn.release(&first).expect("writes"), Advance::Done);
    let (second, _) = claim(&mut conn, "second", TTL);
    assert!(second.epoch > first.epoch);
    let hold = Hold {
        seq: 1,
        ordering_key: None,
        reason: HoldReason::Nacked,
        result: HoldResult::UntilFirst,
    };
    assert_eq!(conn.advance(&first, &position, &[]).expect("writes"), Advance::LeaseLost);
    assert_eq!(conn.advance(&first, &position, &[hold]).expect("writes"), Advance::LeaseLost);
    assert_eq!(
        conn.settle(&first, &[Held::Published { seq: 1 }]).expect("writes"),
        Advance::LeaseLost
    );
    assert_eq!(conn.renew(&first).expect("writes"), Advance::LeaseLost);
    assert_eq!(conn.release(&first).expect("writes"), Advance::LeaseLost);
    assert_eq!(conn.renew(&second).expect("writes"), Advance::Done);
}

fn an_expired_lease_can_be_taken<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let (first, _) = claim(&mut conn, "first", Duration::ZERO);
    let (second, position) = claim(&mut conn, "second", TTL);
    assert_eq!(conn.advance(&first, &position, &[]).expect("writes"), Advance::LeaseLost);
    assert_eq!(conn.advance(&second, &position, &[]).expect("writes"), Advance::Done);
}

fn the_cursor_goes_on_where_it_was_advanced_to<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    enqueue_facts::<S>(&mut conn, &[Fact::keyless(1), Fact::keyless(2), Fact::keyless(3)]);
    let (lease, position) = claim(&mut conn, "first", TTL);
    let two = conn.read(&position, ReadLimit { rows: 2, ..LIMIT }).expect("reads");
    assert_eq!(conn.pending("c").expect("counts"), 3);
    assert_eq!(conn.advance(&lease, &two.next, &[]).expect("writes"), Advance::Done);
    assert_eq!(conn.pending("c").expect("counts"), 1);
    assert_eq!(conn.release(&lease).expect("writes"), Advance::Done);
    let (_, position) = claim(&mut conn, "second", TTL);
    assert_eq!(position, two.next);
    assert_eq!(numbers(&conn.read(&position, LIMIT).expect("reads")), [3]);
}

fn held_messages_come_back_first_of_their_key_first<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let facts =
        [Fact::of("a", 1), Fact::of("a", 2), Fact::of("b", 3), Fact::keyless(4), Fact::keyless(5)];
    enqueue_facts::<S>(&mut conn, &facts);
    let (lease, position) = claim(&mut conn, "me", TTL);
    let chunk = conn.read(&position, LIMIT).expect("reads");
    let seqs: Vec<i64> = chunk.entries.iter().map(|entry| entry.seq).collect();
    let again = |after| HoldResult::Again { attempts: 1, after, error: "refused".into() };
    let hold = |at: usize, reason, result| Hold {
        seq: seqs[at],
        ordering_key: chunk.entries[at].message.ordering_key.clone(),
        reason,
        result,
    };
    let dead = HoldResult::Dead { attempts: 3, error: "too large".into() };
    let holds = [
        hold(0, HoldReason::Unroutable, again(Duration::ZERO)),
        hold(1, HoldReason::Behind, HoldResult::UntilFirst),
        hold(2, HoldReason::Nacked, again(TTL)),
        hold(3, HoldReason::Poison, dead),
        hold(4, HoldReason::ExchangeMissing, again(Duration::ZERO)),
    ];
    assert_eq!(conn.advance(&lease, &chunk.next, &holds).expect("writes"), Advance::Done);
    let mut keys = conn.held_keys("c").expect("reads");
    keys.sort();
    assert_eq!(keys, ["a", "b"]);

    let due = |conn: &mut S::Conn| -> Vec<(i64, u32, HoldReason)> {
        let due = conn.due("c", LIMIT).expect("reads");
        due.iter().map(|d| (d.entry.seq, d.attempts, d.reason)).collect()
    };
    let mut first = due(&mut conn);
    first.sort_unstable_by_key(|due| due.0);
    assert_eq!(
        first,
        [(seqs[0], 1, HoldReason::Unroutable), (seqs[4], 1, HoldReason::ExchangeMissing)]
    );

    let results =
        [Held::Published { seq: seqs[0] }, Held::Still(hold(4, HoldReason::Nacked, again(TTL)))];
    assert_eq!(conn.settle(&lease, &results).expect("writes"), Advance::Done);
    // What was behind is first of its key now; the keyless one waits again.
    assert_eq!(due(&mut conn), [(seqs[1], 0, HoldReason::Behind)]);
    assert_eq!(
        conn.settle(&lease, &[Held::Published { seq: seqs[1] }]).expect("writes"),
        Advance::Done
    );
    assert_eq!(due(&mut conn), []);
    assert_eq!(conn.held_keys("c").expect("reads"), ["b"]);
}

fn a_delayed_message_is_told_and_waits_for_its_time<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let now = std::time::SystemTime::now();
    let drafts = [
        Draft::of(&Fact::of("k", 1)).deliver_after(Duration::from_secs(3600)),
        Draft::of(&Fact::of("k", 2)).deliver_at(now - Duration::from_secs(60)),
        Draft::of(&Fact::of("k", 3)).deliver_after(Duration::MAX),
    ];
    conn.write(|tx| outbox::enqueue_all(tx, drafts)).expect("enqueues");
    let (lease, position) = claim(&mut conn, "me", TTL);
    let chunk = conn.read(&position, LIMIT).expect("reads");
    assert_eq!(
        chunk.entries.iter().map(|entry| entry.delayed).collect::<Vec<_>>(),
        [true, false, true]
    );
    let hold = Hold {
        seq: chunk.entries[0].seq,
        ordering_key: Some("k".into()),
        reason: HoldReason::Delayed,
        result: HoldResult::UntilDue,
    };
    assert_eq!(conn.advance(&lease, &chunk.next, &[hold]).expect("writes"), Advance::Done);
    assert!(conn.due("c", LIMIT).expect("reads").is_empty());
    // Nobody waits behind a message that only waits for its time.
    assert!(conn.held_keys("c").expect("reads").is_empty());
    conn.batch_execute(&format!(
        "UPDATE outbox_holds SET not_before = held_at WHERE seq = {}",
        chunk.entries[0].seq
    ))
    .expect("time passes");
    assert_eq!(conn.due("c", LIMIT).expect("reads").len(), 1);
}

macro_rules! on_every_store {
    ($($scenario:ident),+ $(,)?) => {
        mod postgres { $(#[test] fn $scenario() { super::$scenario::<super::Postgres>(); })+ }
        mod sqlite { $(#[test] fn $scenario() { super::$scenario::<super::Sqlite>(); })+ }
    };
}

on_every_store!(
    an_enqueue_outside_a_transaction_is_refused,
    what_is_enqueued_is_read_as_it_was,
    a_rolled_back_enqueue_is_never_read,
    a_limit_of_rows_and_of_bytes_is_kept,
    bad_rows_are_refused_by_the_table,
    a_plain_insert_gets_every_default,
    the_same_id_is_stored_once,
    a_missing_table_is_named_with_its_remedy,
    serialized_needs_a_key,
    a_lease_has_one_holder_and_fences_the_last_one,
    an_expired_lease_can_be_taken,
    the_cursor_goes_on_where_it_was_advanced_to,
    held_messages_come_back_first_of_their_key_first,
    a_delayed_message_is_told_and_waits_for_its_time,
);
