//! Retention: what may be deleted from the log, and what never.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use outbox::admin::{AdminStore, NewCursor, Order, Purged, Start};
use outbox::reader::{Advance, Claim, Filter, Hold, HoldReason, HoldResult, LogStore, ReadLimit};
use support::database::Database;
use support::events::Fact;

use super::{LIMIT, Store, TTL, claim, enqueue_facts, numbers};

const AT_ONCE: Duration = Duration::ZERO;

/// The facts that are left in the log.
fn left(conn: &mut impl AdminStore) -> Vec<i64> {
    let order = Order::new("me", "to look");
    conn.add_cursor(&everything("look"), &order).expect("adds");
    let Ok(Claim::Taken(_, start)) = conn.claim("look", "me", TTL) else { panic!("free") };
    let facts = numbers(&conn.read(&start, &super::ALL, LIMIT).expect("reads"));
    conn.retire_cursor("look", true, &order).expect("retires");
    facts
}

fn everything(name: &str) -> NewCursor {
    NewCursor { name: name.into(), filter: Filter::default(), start: Start::Beginning }
}

/// Only the cursors that a test makes count.
fn without_default(conn: &mut impl SimpleConnection) {
    conn.batch_execute("DELETE FROM outbox_cursors").expect("deletes");
}

fn purge(conn: &mut impl AdminStore, from: i64, rows: u32) -> Purged {
    let would = conn.purgeable(AT_ONCE, from, rows).expect("looks");
    let did = conn.purge(AT_ONCE, from, rows).expect("purges");
    assert_eq!(would, did);
    did
}

fn only_what_every_cursor_has_handed_on_goes<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    enqueue_facts::<S>(&mut conn, &[Fact::keyless(1), Fact::keyless(2), Fact::keyless(3)]);
    without_default(&mut conn);
    let purged = purge(&mut conn, 0, 10);
    assert_eq!((purged.deleted, purged.done), (0, true), "no cursor, so nobody has read anything");

    for name in ["relay", "slow"] {
        conn.add_cursor(&everything(name), &Order::new("me", "test")).expect("adds");
    }
    let (lease, position) = claim(&mut conn, "me", TTL);
    let all = conn.read(&position, &super::ALL, LIMIT).expect("reads");
    assert_eq!(conn.advance(&lease, &all.next, &[]).expect("writes"), Advance::Done);
    assert_eq!(purge(&mut conn, 0, 10).deleted, 0, "the slow one still needs them");

    let two = conn.read(&position, &super::ALL, ReadLimit { rows: 2, ..LIMIT }).expect("reads");
    let Ok(Claim::Taken(slow, _)) = conn.claim("slow", "me", TTL) else { panic!("free") };
    assert_eq!(conn.advance(&slow, &two.next, &[]).expect("writes"), Advance::Done);
    let young = conn.purge(Duration::from_secs(3600), 0, 10).expect("purges");
    assert_eq!((young.deleted, young.done), (0, true), "they are younger than that");
    let purged = purge(&mut conn, 0, 10);
    assert_eq!((purged.deleted, purged.done), (2, true));
    assert_eq!(left(&mut conn), [3]);
    assert_eq!(purge(&mut conn, purged.next, 10).deleted, 0);
}

fn what_is_held_stays_and_the_walk_goes_on_behind_it<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let facts: Vec<Fact> = (1..=7).map(Fact::keyless).collect();
    enqueue_facts::<S>(&mut conn, &facts);
    without_default(&mut conn);
    conn.add_cursor(&everything("relay"), &Order::new("me", "test")).expect("adds");
    let (lease, position) = claim(&mut conn, "me", TTL);
    let chunk = conn.read(&position, &super::ALL, LIMIT).expect("reads");
    let hold = |at: usize, result| Hold {
        seq: chunk.entries[at].seq,
        ordering_key: None,
        reason: HoldReason::Nacked,
        result,
    };
    let dead = HoldResult::Dead { attempts: 1, error: "full".into() };
    let holds = [hold(1, HoldResult::UntilFirst), hold(4, dead)];
    assert_eq!(conn.advance(&lease, &chunk.next, &holds).expect("writes"), Advance::Done);

    // In batches: each begins where the last one ended, and none passes a row unseen.
    let (mut from, mut deleted, mut batches) = (0, 0, 0);
    loop {
        let purged = purge(&mut conn, from, 2);
        assert!(purged.next >= from && purged.deleted <= 2);
        (from, deleted, batches) = (purged.next, deleted + purged.deleted, batches + 1);
        if purged.done {
            break;
        }
    }
    assert_eq!((deleted, batches), (5, 4));
    assert_eq!(left(&mut conn), [2, 5]);
}

on_every_store!(
    only_what_every_cursor_has_handed_on_goes,
    what_is_held_stays_and_the_walk_goes_on_behind_it,
);

/// A database with one cursor `c` that stands behind a row, written while `early` was open with some
/// rows of its own below that.
fn with_an_early_transaction(
    rows: std::ops::RangeInclusive<i64>,
) -> (Database, PgConnection, PgConnection) {
    let database = Database::postgres();
    let (mut early, mut conn) = (database.pg(), database.pg());
    without_default(&mut conn);
    conn.add_cursor(&everything("relay"), &Order::new("me", "test")).expect("adds");
    early.batch_execute("BEGIN").expect("begins");
    for row in rows {
        early.batch_execute(&insert(row)).expect("inserts");
    }
    conn.batch_execute(&insert(100)).expect("inserts");
    let (lease, position) = claim(&mut conn, "me", TTL);
    let chunk = conn.read(&position, &super::ALL, LIMIT).expect("reads");
    assert_eq!(numbers(&chunk), [100]);
    assert_eq!(conn.advance(&lease, &chunk.next, &[]).expect("writes"), Advance::Done);
    (database, early, conn)
}

fn insert(number: i64) -> String {
    let payload =
        String::from_utf8(serde_json::to_vec(&Fact::keyless(number)).expect("JSON")).expect("text");
    format!(
        "INSERT INTO outbox_messages (kind, operation, payload, created_at)
         VALUES ('fact', '{number}', convert_to('{payload}', 'UTF8'), now() - interval '90 days')"
    )
}

/// Below the cursor, committed and old, but not handed on: the reader finds it as late.
#[test]
fn a_row_that_committed_after_the_cursor_passed_is_not_purged() {
    let (_database, mut early, mut conn) = with_an_early_transaction(1..=1);
    // Nothing is seen of it while it is open; the row above it has been handed on and goes.
    early.batch_execute("COMMIT").expect("commits");
    let purged = purge(&mut conn, 0, 10);
    assert_eq!((purged.deleted, purged.done), (0, true));

    let (lease, position) = claim(&mut conn, "me", TTL);
    let late = conn.read(&position, &super::ALL, LIMIT).expect("reads");
    assert_eq!(numbers(&late), [1]);
    assert_eq!(conn.advance(&lease, &late.next, &[]).expect("writes"), Advance::Done);
    assert_eq!(purge(&mut conn, 0, 10).deleted, 2);
}

#[test]
fn a_transaction_that_stays_open_keeps_no_other_row_from_the_purge() {
    let (_database, mut early, mut conn) = with_an_early_transaction(1..=1);
    assert_eq!(purge(&mut conn, 0, 10).deleted, 1);
    early.batch_execute("COMMIT").expect("commits");
    let (_, position) = claim(&mut conn, "me", TTL);
    assert_eq!(numbers(&conn.read(&position, &super::ALL, LIMIT).expect("reads")), [1], "lost");
}

/// A late transaction that is read in pieces: the snapshot has not moved yet, only the place in it.
#[test]
fn the_rest_of_a_late_transaction_that_is_read_in_pieces_is_not_purged() {
    let (_database, mut early, mut conn) = with_an_early_transaction(1..=9);
    early.batch_execute("COMMIT").expect("commits");
    let (lease, mut position) = claim(&mut conn, "me", TTL);
    let (mut from, mut read, mut deleted) = (0, vec![100], 0);
    while read.len() < 10 {
        let piece =
            conn.read(&position, &super::ALL, ReadLimit { rows: 2, ..LIMIT }).expect("reads");
        read.extend(numbers(&piece));
        position = piece.next;
        assert_eq!(conn.advance(&lease, &position, &[]).expect("writes"), Advance::Done);
        let purged = purge(&mut conn, from, 100);
        (from, deleted) = (purged.next, deleted + purged.deleted);
        assert!(deleted <= read.len() as u64, "more is gone than was read");
    }
    assert_eq!(read[1..], (1..=9).collect::<Vec<_>>());
    // The last piece told that no more are left, or the next read does.
    let rest = conn.read(&position, &super::ALL, LIMIT).expect("reads");
    assert_eq!(conn.advance(&lease, &rest.next, &[]).expect("writes"), Advance::Done);
    deleted += purge(&mut conn, from, 100).deleted;
    assert_eq!(deleted, 10);
}

/// The purge takes no lock that a reader, a holder or a producer could wait for.
#[test]
fn a_purge_under_way_is_in_nobody_s_way() {
    let (database, mut early, mut conn) = with_an_early_transaction(1..=1);
    let mut purger = database.pg();
    purger
        .transaction(|purger| {
            assert_eq!(purger.purge(AT_ONCE, 0, 10)?.deleted, 1);
            conn.batch_execute("SET lock_timeout = '1s'").expect("sets");
            early.batch_execute("COMMIT").expect("commits");
            conn.batch_execute(&insert(101)).expect("inserts");
            let (lease, position) = claim(&mut conn, "me", TTL);
            let chunk = conn.read(&position, &super::ALL, LIMIT).expect("reads");
            assert_eq!(numbers(&chunk), [1, 101]);
            assert_eq!(conn.advance(&lease, &chunk.next, &[]).expect("writes"), Advance::Done);
            Ok::<_, diesel::result::Error>(())
        })
        .expect("purges");
}
