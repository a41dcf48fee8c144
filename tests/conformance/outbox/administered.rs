//! What operators do to cursors, and the record of it.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use outbox::admin::{AdminError, AdminStore, NewCursor, Order, Start};
use outbox::reader::{Claim, Filter, LogStore};
use support::database::Database;
use support::events::Fact;

use super::{LIMIT, Store, TTL, enqueue_facts, numbers};

fn order() -> Order {
    Order::new("anna@desk", "ticket 4711")
}

fn dry() -> Order {
    Order { dry_run: true, ..order() }
}

fn new(name: &str, start: Start) -> NewCursor {
    NewCursor { name: name.into(), filter: Filter::default(), start }
}

fn read_on(conn: &mut impl LogStore, cursor: &str) -> Vec<i64> {
    match conn.claim(cursor, "me", TTL).expect("asks") {
        Claim::Taken(_, position) => {
            numbers(&conn.read(&position, &super::ALL, LIMIT).expect("reads"))
        }
        other => panic!("{other:?}"),
    }
}

fn actions(conn: &mut impl AdminStore) -> Vec<String> {
    conn.audit(100).expect("reads").into_iter().map(|entry| entry.action).collect()
}

fn a_cursor_is_made_where_it_is_told<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    conn.add_cursor(&new("from the first", Start::Now), &order()).expect("an empty log");
    enqueue_facts::<S>(&mut conn, &[Fact::keyless(1), Fact::keyless(2)]);
    conn.add_cursor(&new("all", Start::Beginning), &order()).expect("adds");
    conn.add_cursor(&new("later", Start::Now), &order()).expect("adds");
    conn.add_cursor(&new("never", Start::Now), &dry()).expect("looks");
    enqueue_facts::<S>(&mut conn, &[Fact::keyless(3)]);
    assert_eq!(read_on(&mut conn, "from the first"), [1, 2, 3]);
    assert_eq!(read_on(&mut conn, "all"), [1, 2, 3]);
    assert_eq!(read_on(&mut conn, "later"), [3]);
    assert!(matches!(
        conn.add_cursor(&new("all", Start::Now), &order()),
        Err(AdminError::CursorExists { .. })
    ));
    let names: Vec<_> = conn.cursors().expect("reads").into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["all", "from the first", "later", "relay"]);
    assert_eq!(actions(&mut conn), ["cursors.add"; 3]);
}

fn a_filter_is_stored_and_checked<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let filter = Filter {
        kinds: Some(vec!["a \"quoted\" kind".into(), "b\\c".into()]),
        exchanges: Some(vec!["events".into()]),
    };
    let picky = NewCursor { filter: filter.clone(), ..new("picky", Start::Beginning) };
    conn.add_cursor(&picky, &order()).expect("adds");
    let stored = conn.cursors().expect("reads").into_iter().find(|c| c.name == "picky");
    assert_eq!(stored.expect("there").filter, filter);
    for kinds in [vec![], vec![String::new()], vec!["a\nb".to_owned()]] {
        let filter = Filter { kinds: Some(kinds), exchanges: None };
        let refused = NewCursor { filter, ..new("refused", Start::Beginning) };
        assert!(matches!(
            conn.add_cursor(&refused, &order()),
            Err(AdminError::Unusable { field: "kind", .. })
        ));
    }
    for order in [Order::new("", "why"), Order::new("anna", " ")] {
        assert!(matches!(
            conn.add_cursor(&new("refused", Start::Now), &order),
            Err(AdminError::Unusable { .. })
        ));
    }
    assert_eq!(actions(&mut conn), ["cursors.add"]);
}

fn a_cursor_in_use_is_retired_by_force_only<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    conn.add_cursor(&new("c", Start::Now), &order()).expect("adds");
    let Claim::Taken(lease, _) = conn.claim("c", "a relay", TTL).expect("asks") else {
        panic!("free")
    };
    conn.batch_execute(
        "INSERT INTO outbox_holds (cursor, seq, state, reason, not_before)
         SELECT name, 7, 'dead', 'poison', created_at FROM outbox_cursors WHERE name = 'c'",
    )
    .expect("holds");
    match conn.retire_cursor("c", false, &order()) {
        Err(AdminError::CursorHeld { owner, remaining, .. }) => {
            assert_eq!(owner, "a relay");
            assert!(remaining <= TTL && remaining > Duration::from_secs(1), "{remaining:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(conn.retire_cursor("c", true, &dry()).expect("looks"), 1);
    assert_eq!(conn.renew(&lease).expect("writes"), outbox::reader::Advance::Done);
    assert_eq!(conn.retire_cursor("c", true, &order()).expect("retires"), 1);
    // Its holder learns of it as of a lost lease.
    assert_eq!(conn.renew(&lease).expect("writes"), outbox::reader::Advance::LeaseLost);
    assert!(conn.hold_counts().expect("counts").is_empty());
    assert!(matches!(
        conn.retire_cursor("c", true, &order()),
        Err(AdminError::UnknownCursor { .. })
    ));
    assert_eq!(actions(&mut conn), ["cursors.retire", "cursors.add"]);
}

fn a_pause_says_who_and_why<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let paused = |conn: &mut S::Conn| conn.cursors().expect("reads").remove(0).paused;
    conn.pause("relay", &dry()).expect("looks");
    assert_eq!(paused(&mut conn), None);
    conn.pause("relay", &order()).expect("pauses");
    let first = paused(&mut conn).expect("paused");
    assert_eq!(first.reason, "ticket 4711");
    conn.pause("relay", &Order::new("bert", "still broken")).expect("pauses");
    let second = paused(&mut conn).expect("paused");
    assert_eq!((second.since, &second.reason[..]), (first.since, "still broken"));
    assert!(conn.resume("relay", &dry()).expect("looks"));
    assert!(conn.resume("relay", &order()).expect("resumes"));
    assert!(!conn.resume("relay", &order()).expect("looks"));
    assert!(matches!(conn.pause("rely", &order()), Err(AdminError::UnknownCursor { .. })));
    let audit = conn.audit(2).expect("reads");
    assert_eq!(
        audit.iter().map(|entry| &entry.action[..]).collect::<Vec<_>>(),
        ["resume", "pause"]
    );
    assert_eq!((&audit[1].actor[..], &audit[1].reason[..]), ("bert", "still broken"));
    assert_eq!(audit[0].cursor.as_deref(), Some("relay"));
}

fn the_backlog_is_counted_up_to_its_bound<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let second = Duration::from_secs(1);
    let empty = conn.backlog("relay", 3, second).expect("counts");
    assert_eq!((empty.messages, empty.more, empty.oldest), (0, false, None));
    let facts: Vec<Fact> = (1..=3).map(Fact::keyless).collect();
    enqueue_facts::<S>(&mut conn, &facts);
    let three = conn.backlog("relay", 3, second).expect("counts");
    assert_eq!((three.messages, three.more, three.oldest.is_some()), (3, false, true));
    let more = conn.backlog("relay", 2, second).expect("counts");
    assert_eq!((more.messages, more.more), (2, true));
    let other = Filter { kinds: Some(vec!["another".into()]), exchanges: None };
    let picky = NewCursor { filter: other, ..new("picky", Start::Beginning) };
    conn.add_cursor(&picky, &order()).expect("adds");
    assert_eq!(conn.backlog("picky", 3, second).expect("counts").messages, 0);
    assert_eq!(conn.exchanges("relay", 10).expect("reads"), ["events"]);
    assert!(conn.exchanges("gone", 10).expect("reads").is_empty());
    conn.vitals(second).expect("reads");
    conn.facts().expect("reads");
}

on_every_store!(
    a_cursor_is_made_where_it_is_told,
    a_filter_is_stored_and_checked,
    a_cursor_in_use_is_retired_by_force_only,
    a_pause_says_who_and_why,
    the_backlog_is_counted_up_to_its_bound,
);

/// What is being written when a cursor is made at "now" belongs to it, whatever its number.
#[test]
fn a_cursor_made_now_gets_what_is_in_flight() {
    let database = Database::postgres();
    let (mut early, mut conn) = (database.pg(), database.pg());
    let insert = |number: i64| {
        format!(
            "INSERT INTO outbox_messages (kind, operation, payload)
             VALUES ('fact', 'o', convert_to('{{\"key\":null,\"number\":{number}}}', 'UTF8'))"
        )
    };
    early.batch_execute("BEGIN").expect("begins");
    early.batch_execute(&insert(1)).expect("inserts");
    conn.batch_execute(&insert(2)).expect("inserts");
    conn.add_cursor(&new("now", Start::Now), &order()).expect("adds");
    early.batch_execute("COMMIT").expect("commits");
    conn.batch_execute(&insert(3)).expect("inserts");
    assert_eq!(read_on(&mut conn, "now"), [1, 3]);
}

#[test]
fn who_holds_back_vacuum_is_named() {
    let database = Database::postgres();
    let (mut holder, mut conn) = (database.pg(), database.pg());
    holder
        .batch_execute("SET application_name = 'forgotten'; BEGIN; SELECT pg_current_xact_id()")
        .expect("begins");
    // Others' transactions may be older than ours, but not this one's database.
    conn.batch_execute("SELECT pg_current_xact_id()").expect("a later transaction");
    let vitals = conn.vitals(Duration::from_secs(5)).expect("reads");
    let oldest = vitals.oldest_xmin.expect("at least ours");
    assert!(oldest.who.starts_with("process ") || oldest.who.starts_with("prepared"), "{oldest:?}");
    assert_eq!(vitals.dead_tuples.len(), 3);
    let facts = conn.facts().expect("reads");
    assert!(
        facts.identity.is_some() && facts.rights.iter().all(|right| right.granted),
        "{facts:?}"
    );
    assert!(facts.next_xid >= facts.highest_cursor_xid);
}
