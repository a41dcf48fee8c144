//! A database with another cluster's numbers, made by hand. PostgreSQL only. The same with a real dump,
//! a real second cluster and the program is a fault test.

use diesel::connection::SimpleConnection;
use outbox::admin::{AdminStore, NewCursor, Order, Rebased, Start};
use outbox::reader::{Claim, Filter, LogStore};
use support::database::Database;
use support::events::Fact;

use super::{ALL, LIMIT, Postgres, TTL, enqueue_facts, numbers};

/// Six rows of far transactions. `relay` stands at the fourth with the second still open in its snapshot;
/// `other` has handed everything on; `piecemeal` reads the second and third late, in pieces, and has
/// come to the second.
fn restored() -> Database {
    let database = Database::postgres();
    let mut conn = database.pg();
    enqueue_facts::<Postgres>(&mut conn, &(1..=6).map(Fact::keyless).collect::<Vec<_>>());
    for name in ["other", "piecemeal"] {
        let new =
            NewCursor { name: name.into(), filter: Filter::default(), start: Start::Beginning };
        conn.add_cursor(&new, &Order::new("test", "a test")).expect("adds");
    }
    conn.batch_execute(
        "UPDATE outbox_messages SET xid = (4000000000000 + seq)::text::xid8;
         UPDATE outbox_cursors SET system_id = '7', timeline = 1, owner = 'gone', lease_until = 'infinity',
             advanced_at = clock_timestamp();
         UPDATE outbox_cursors SET seq = 4, snapshot = '4000000000002:4000000000005:4000000000002' WHERE name = 'relay';
         UPDATE outbox_cursors SET seq = 6, snapshot = '4000000000007:4000000000007:' WHERE name = 'other';
         UPDATE outbox_cursors SET seq = 4, snapshot = '4000000000002:4000000000005:4000000000002,4000000000003',
             late_seq = 2, late_snapshot = '4000000000005:4000000000005:' WHERE name = 'piecemeal'",
    )
    .expect("as restored");
    database
}

fn rebase(conn: &mut impl AdminStore, order: &Order) -> Rebased {
    assert_eq!(conn.fence().expect("asks"), None, "the holders are another cluster's");
    assert!(conn.foreign("relay").expect("asks").is_some(), "kept out until it is through");
    let mut from = Some(0);
    while let Some(place) = from {
        from = conn.mark_piece(place).expect("marks").1;
    }
    conn.rebase(order).expect("rebases")
}

/// Reads all there is, as a relay would; the facts in order.
fn read_on(conn: &mut impl AdminStore, name: &str) -> Vec<i64> {
    let Claim::Taken(lease, mut position) = conn.claim(name, "me", TTL).expect("asks") else {
        panic!("not ours")
    };
    let mut read = Vec::new();
    loop {
        let chunk = conn.read(&position, &ALL, LIMIT).expect("reads");
        read.extend(numbers(&chunk));
        position = chunk.next;
        if chunk.exhausted {
            break;
        }
    }
    assert_eq!(
        conn.advance(&lease, &position, &[]).expect("writes"),
        outbox::reader::Advance::Done
    );
    assert_eq!(conn.release(&lease).expect("writes"), outbox::reader::Advance::Done);
    read
}

#[test]
fn what_was_not_handed_on_is_and_nothing_is_skipped_afterwards() {
    let database = restored();
    let mut conn = database.pg();
    assert!(conn.foreign("relay").expect("asks").is_some());
    // A producer writes here already, before anybody has noticed; its number is a low one.
    enqueue_facts::<Postgres>(&mut conn, &[Fact::keyless(7)]);
    let order = Order::new("test", "restored");
    let rebased = rebase(&mut conn, &order);
    assert_eq!(rebased, Rebased { cursors: 3, late: 2, pending: 3 });
    assert_eq!(conn.foreign("relay").expect("asks"), None);
    // Late ones first or among the others, by place; the third is late for another cursor only, and
    // may come again.
    let read = read_on(&mut conn, "relay");
    assert!(read == [2, 5, 6, 7] || read == [2, 3, 5, 6, 7], "{read:?}");
    assert_eq!(read_on(&mut conn, "other"), [7]);
    let read = read_on(&mut conn, "piecemeal");
    assert!(read == [3, 5, 6, 7] || read == [2, 3, 5, 6, 7], "{read:?}");
    enqueue_facts::<Postgres>(&mut conn, &[Fact::keyless(8)]);
    for name in ["relay", "other", "piecemeal"] {
        assert_eq!(read_on(&mut conn, name), [8], "{name}");
    }
    assert_eq!(conn.audit(1).expect("reads")[0].action, "rebase");
}

#[test]
fn a_rebase_that_was_interrupted_is_done_again() {
    let database = restored();
    let mut conn = database.pg();
    // Some pieces were marked, then the operator's connection was lost; twice.
    conn.mark_piece(0).expect("marks");
    conn.mark_piece(0).expect("marks");
    let rebased = rebase(&mut conn, &Order::new("test", "restored"));
    assert_eq!(rebased, Rebased { cursors: 3, late: 2, pending: 2 });
    let read = read_on(&mut conn, "relay");
    assert!(read == [2, 5, 6] || read == [2, 3, 5, 6], "{read:?}");
    assert_eq!(read_on(&mut conn, "other"), Vec::<i64>::new());
}

#[test]
fn a_sequence_that_was_left_behind_gives_out_no_place_below_a_cursor() {
    let database = restored();
    let mut conn = database.pg();
    // A logical copy brings rows and no sequence: a row written here got a place that is passed.
    conn.batch_execute(
        "DELETE FROM outbox_messages WHERE seq = 3;
         SELECT setval('outbox_messages_seq_seq', 2)",
    )
    .expect("as copied");
    enqueue_facts::<Postgres>(&mut conn, &[Fact::keyless(33)]);
    rebase(&mut conn, &Order::new("test", "copied"));
    assert!(read_on(&mut conn, "relay").contains(&33));
    assert!(read_on(&mut conn, "other").contains(&33));
    enqueue_facts::<Postgres>(&mut conn, &[Fact::keyless(34)]);
    assert_eq!(read_on(&mut conn, "other"), [34]);
}

#[test]
fn a_dry_run_changes_nothing() {
    let database = restored();
    let mut conn = database.pg();
    let mut order = Order::new("test", "restored");
    order.dry_run = true;
    let rebased = conn.rebase(&order).expect("counts");
    assert_eq!(rebased, Rebased { cursors: 3, late: 2, pending: 2 });
    assert!(conn.foreign("relay").expect("asks").is_some());
    assert_eq!(conn.audit(10).expect("reads").iter().filter(|e| e.action == "rebase").count(), 0);
}

#[test]
fn a_relay_that_works_here_is_not_rebased_under_its_feet() {
    let database = Database::postgres();
    let mut conn = database.pg();
    let (lease, _) = super::claim(&mut conn, "me", TTL);
    assert_eq!(conn.fence().expect("asks").as_deref(), Some("me"));
    assert_eq!(conn.renew(&lease).expect("writes"), outbox::reader::Advance::Done);
}
