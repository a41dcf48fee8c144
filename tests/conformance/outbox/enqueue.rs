//! Enqueueing, and reading back what was enqueued.

use std::time::Duration;

use db::Backend as _;
use diesel::connection::SimpleConnection;
use message::{Message, MessageId, TraceContext};
use outbox::reader::{LogStore, ReadLimit};
use outbox::{Draft, EnqueueError};
use support::events::Fact;

use super::{ALL, LIMIT, Store, TTL, claim, enqueue_facts, numbers};

fn an_enqueue_outside_a_transaction_is_refused<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let error = outbox::enqueue(&mut conn, &Fact::keyless(1)).expect_err("refused");
    assert!(matches!(error, EnqueueError::NoTransaction), "{error}");
    let (_, position) = claim(&mut conn, "me", TTL);
    assert!(conn.read(&position, &ALL, LIMIT).expect("reads").entries.is_empty());
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
    let chunk = conn.read(&position, &ALL, LIMIT).expect("reads");
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
    assert_eq!(numbers(&conn.read(&position, &ALL, LIMIT).expect("reads")), [2]);
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
        let chunk = conn.read(&position, &ALL, limit).expect("reads");
        sizes.push((chunk.entries.len(), chunk.exhausted));
        read.extend(numbers(&chunk));
        position = chunk.next;
    }
    // Each row counts its payload of about 2,040 bytes and 512: three of them pass 6,000.
    assert_eq!(sizes, [(2, false), (3, false), (1, false)]);
    let rest = conn.read(&position, &ALL, LIMIT).expect("reads");
    read.extend(numbers(&rest));
    assert_eq!(read, [1, 2, 3, 4, 5, 6, 7]);
    assert!(rest.exhausted);
    assert!(conn.read(&rest.next, &ALL, LIMIT).expect("reads").entries.is_empty());
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
    let chunk = conn.read(&position, &ALL, LIMIT).expect("reads");
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
    let chunk = conn.read(&position, &ALL, LIMIT).expect("reads");
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
);
