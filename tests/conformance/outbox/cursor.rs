//! Leases, the cursor and what it holds back.

use std::time::Duration;

use db::Backend as _;
use diesel::connection::SimpleConnection;
use outbox::Draft;
use outbox::admin::{AdminStore, NewCursor, Order, Start};
use outbox::reader::{
    Advance, Claim, Filter, Held, Hold, HoldReason, HoldResult, LogStore, ReadLimit, Settled,
};
use support::events::Fact;

use super::{ALL, LIMIT, Store, TTL, claim, enqueue_facts, numbers};

fn a_lease_has_one_holder_and_fences_the_last_one<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let (first, position) = claim(&mut conn, "first", TTL);
    match conn.claim("relay", "second", TTL).expect("asks") {
        Claim::Busy { owner, remaining } => {
            assert_eq!(owner, "first");
            assert!(remaining > Duration::from_secs(50) && remaining <= TTL, "{remaining:?}");
        }
        other => panic!("{other:?}"),
    }
    // Another cursor is another matter, once there is one.
    assert!(matches!(conn.claim("other", "second", TTL).expect("asks"), Claim::Unknown));
    add(&mut conn, "other", Filter::default(), Start::Beginning);
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
        Settled::LeaseLost
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
    let two = conn.read(&position, &ALL, ReadLimit { rows: 2, ..LIMIT }).expect("reads");
    assert_eq!(conn.pending("relay").expect("counts"), 3);
    assert_eq!(conn.advance(&lease, &two.next, &[]).expect("writes"), Advance::Done);
    assert_eq!(conn.pending("relay").expect("counts"), 1);
    assert_eq!(conn.release(&lease).expect("writes"), Advance::Done);
    let (_, position) = claim(&mut conn, "second", TTL);
    assert_eq!(position, two.next);
    assert_eq!(numbers(&conn.read(&position, &ALL, LIMIT).expect("reads")), [3]);
}

/// Adds a cursor.
fn add(conn: &mut impl AdminStore, name: &str, filter: Filter, start: Start) {
    let new = NewCursor { name: name.to_owned(), filter, start };
    conn.add_cursor(&new, &Order::new("test", "a test")).expect("adds");
}

fn again(after: Duration) -> HoldResult {
    HoldResult::Again { attempts: 1, after, error: "refused".into() }
}

fn due(conn: &mut impl AdminStore) -> Vec<(i64, u32, HoldReason)> {
    let due = conn.due("relay", LIMIT).expect("reads");
    assert!(due.iter().all(|due| !due.blocked));
    due.iter().map(|due| (due.entry.seq, due.attempts, due.reason)).collect()
}

fn held_messages_come_back_first_of_their_key_first<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let facts = [
        Fact::of("a", 1),
        Fact::of("a", 2),
        Fact::of("b", 3),
        Fact::keyless(4),
        Fact::keyless(5),
        Fact::of("a", 6),
    ];
    enqueue_facts::<S>(&mut conn, &facts);
    let (lease, position) = claim(&mut conn, "me", TTL);
    let chunk = conn.read(&position, &ALL, LIMIT).expect("reads");
    let seqs: Vec<i64> = chunk.entries.iter().map(|entry| entry.seq).collect();
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
        hold(5, HoldReason::Behind, HoldResult::UntilFirst),
    ];
    assert_eq!(conn.advance(&lease, &chunk.next, &holds).expect("writes"), Advance::Done);
    let mut keys = conn.held_keys("relay").expect("reads");
    keys.sort();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(conn.count_held("relay").expect("counts"), 4, "those behind another not counted");

    // The first of a key with the run behind it, in order.
    let mut first = due(&mut conn);
    let of_a: Vec<i64> = first.iter().map(|due| due.0).filter(|seq| *seq != seqs[4]).collect();
    assert_eq!(of_a, [seqs[0], seqs[1], seqs[5]]);
    first.sort_unstable_by_key(|due| due.0);
    assert_eq!(first[0], (seqs[0], 1, HoldReason::Unroutable));
    assert_eq!(first[2], (seqs[4], 1, HoldReason::ExchangeMissing));

    // The first of `a` went, the next was not tried; the keyless one waits again.
    let results =
        [Held::Published { seq: seqs[0] }, Held::Still(hold(4, HoldReason::Nacked, again(TTL)))];
    assert_eq!(conn.settle(&lease, &results).expect("writes"), Settled::Done { freed: vec![] });
    // What was behind is first of its key now.
    assert_eq!(
        due(&mut conn),
        [(seqs[1], 0, HoldReason::Released), (seqs[5], 0, HoldReason::Behind)]
    );
    // It is refused in its turn: nothing of the key is due until its time.
    let results = [Held::Still(hold(1, HoldReason::Nacked, again(TTL)))];
    assert_eq!(conn.settle(&lease, &results).expect("writes"), Settled::Done { freed: vec![] });
    assert_eq!(due(&mut conn), []);
    let results = [Held::Published { seq: seqs[1] }, Held::Published { seq: seqs[5] }];
    let freed = vec!["a".to_owned()];
    assert_eq!(conn.settle(&lease, &results).expect("writes"), Settled::Done { freed });
    assert_eq!(due(&mut conn), []);
    assert_eq!(conn.held_keys("relay").expect("reads"), ["b"]);
}

fn whoever_removes_the_first_of_a_key_the_next_comes_due<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    enqueue_facts::<S>(&mut conn, &[Fact::of("a", 1), Fact::of("a", 2), Fact::of("b", 3)]);
    let (lease, position) = claim(&mut conn, "me", TTL);
    let chunk = conn.read(&position, &ALL, LIMIT).expect("reads");
    let dead = HoldResult::Dead { attempts: 1, error: "too large".into() };
    let hold = |at: usize, reason, result| Hold {
        seq: chunk.entries[at].seq,
        ordering_key: chunk.entries[at].message.ordering_key.clone(),
        reason,
        result,
    };
    let holds = [
        hold(0, HoldReason::Poison, dead),
        hold(1, HoldReason::Behind, HoldResult::UntilFirst),
        // Behind nothing, as when the one in front of it is passed by: it is due at once.
        hold(2, HoldReason::Behind, HoldResult::UntilFirst),
    ];
    assert_eq!(conn.advance(&lease, &chunk.next, &holds).expect("writes"), Advance::Done);
    assert_eq!(due(&mut conn), [(chunk.entries[2].seq, 0, HoldReason::Released)]);
    conn.batch_execute("DELETE FROM outbox_holds WHERE state = 'dead'").expect("discards");
    let mut found = due(&mut conn);
    found.sort_unstable_by_key(|due| due.0);
    assert_eq!(found[0], (chunk.entries[1].seq, 0, HoldReason::Released));
}

fn a_delayed_message_of_a_held_key_is_told_to_go_behind<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let drafts = [
        Draft::of(&Fact::of("k", 1)).deliver_after(Duration::from_secs(3600)),
        Draft::of(&Fact::of("k", 2)),
    ];
    conn.write(|tx| outbox::enqueue_all(tx, drafts)).expect("enqueues");
    let (lease, position) = claim(&mut conn, "me", TTL);
    let chunk = conn.read(&position, &ALL, LIMIT).expect("reads");
    let hold = |at: usize, reason, result| Hold {
        seq: chunk.entries[at].seq,
        ordering_key: Some("k".into()),
        reason,
        result,
    };
    let holds = [
        hold(0, HoldReason::Delayed, HoldResult::UntilDue),
        hold(1, HoldReason::Unroutable, again(TTL)),
    ];
    assert_eq!(conn.advance(&lease, &chunk.next, &holds).expect("writes"), Advance::Done);
    conn.batch_execute("UPDATE outbox_holds SET not_before = held_at WHERE reason = 'delayed'")
        .expect("time passes");
    let found = conn.due("relay", LIMIT).expect("reads");
    assert_eq!(found.len(), 1);
    assert!(found[0].blocked && found[0].reason == HoldReason::Delayed, "{found:?}");
    // It goes behind; being the first by place it is next, and not stuck.
    let results = [Held::Still(hold(0, HoldReason::Behind, HoldResult::UntilFirst))];
    assert_eq!(conn.settle(&lease, &results).expect("writes"), Settled::Done { freed: vec![] });
    assert_eq!(due(&mut conn), [(chunk.entries[0].seq, 0, HoldReason::Released)]);
}

fn what_another_of_its_key_stands_before_takes_no_place_for_ever<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    enqueue_facts::<S>(&mut conn, &[Fact::of("a", 1), Fact::of("a", 2), Fact::keyless(3)]);
    let (lease, position) = claim(&mut conn, "me", TTL);
    let chunk = conn.read(&position, &ALL, LIMIT).expect("reads");
    let hold = |at: usize, result| Hold {
        seq: chunk.entries[at].seq,
        ordering_key: chunk.entries[at].message.ordering_key.clone(),
        reason: HoldReason::Nacked,
        result,
    };
    // Both of a key were refused beside each other; the first is to wait longer.
    let holds =
        [hold(0, again(TTL)), hold(1, again(Duration::ZERO)), hold(2, again(Duration::ZERO))];
    assert_eq!(conn.advance(&lease, &chunk.next, &holds).expect("writes"), Advance::Done);
    let one = ReadLimit { rows: 1, ..LIMIT };
    let found = conn.due("relay", one).expect("reads");
    assert!(found.len() == 1 && found[0].blocked, "{found:?}");
    let behind =
        Hold { reason: HoldReason::Behind, result: HoldResult::UntilFirst, ..hold(1, again(TTL)) };
    let settled = conn.settle(&lease, &[Held::Still(behind)]).expect("writes");
    assert_eq!(settled, Settled::Done { freed: vec![] });
    let found = conn.due("relay", one).expect("reads");
    assert!(found.len() == 1 && found[0].entry.seq == chunk.entries[2].seq, "{found:?}");
}

fn a_filter_passes_over_what_it_keeps_back<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    let drafts = (1..=6).map(|n| {
        let draft = Draft::of(&Fact::keyless(n));
        if n % 3 == 0 { draft.exchange("audit") } else { draft }
    });
    conn.write(|tx| outbox::enqueue_all(tx, drafts)).expect("enqueues");
    let audit = |exchange: &str| Filter {
        kinds: Some(vec!["test.fact".to_owned(), "other".to_owned()]),
        exchanges: Some(vec![exchange.to_owned()]),
    };
    add(&mut conn, "audit", audit("audit"), Start::Beginning);
    add(&mut conn, "none", audit("none"), Start::Beginning);
    add(&mut conn, "later", Filter::default(), Start::Now);
    assert_eq!(conn.pending("audit").expect("counts"), 2);
    let taken = |conn: &mut S::Conn, name: &str| match conn.claim(name, "me", TTL).expect("asks") {
        Claim::Taken(lease, position) => (lease, position),
        other => panic!("{other:?}"),
    };
    let (lease, position) = taken(&mut conn, "audit");
    assert_eq!(lease.filter, audit("audit"));
    let limit = ReadLimit { rows: 4, ..LIMIT };
    let first = conn.read(&position, &lease.filter, limit).expect("reads");
    assert_eq!((numbers(&first), first.passed_over, first.exhausted), (vec![3], 3, false));
    assert_eq!(conn.advance(&lease, &first.next, &[]).expect("writes"), Advance::Done);
    let rest = conn.read(&first.next, &lease.filter, limit).expect("reads");
    assert_eq!((numbers(&rest), rest.passed_over, rest.exhausted), (vec![6], 1, true));
    // Nothing of it, and still at the end in the end.
    let (lease, position) = taken(&mut conn, "none");
    let chunk = conn.read(&position, &lease.filter, LIMIT).expect("reads");
    assert_eq!((numbers(&chunk), chunk.passed_over), (vec![], 6));
    assert_eq!(chunk.next.seq(), rest.next.seq());
    // From now on.
    let (lease, position) = taken(&mut conn, "later");
    enqueue_facts::<S>(&mut conn, &[Fact::keyless(7)]);
    assert_eq!(numbers(&conn.read(&position, &lease.filter, LIMIT).expect("reads")), [7]);
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
    let chunk = conn.read(&position, &ALL, LIMIT).expect("reads");
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
    assert!(conn.due("relay", LIMIT).expect("reads").is_empty());
    // Nobody waits behind a message that only waits for its time.
    assert!(conn.held_keys("relay").expect("reads").is_empty());
    conn.batch_execute(&format!(
        "UPDATE outbox_holds SET not_before = held_at WHERE seq = {}",
        chunk.entries[0].seq
    ))
    .expect("time passes");
    assert_eq!(conn.due("relay", LIMIT).expect("reads").len(), 1);
}

on_every_store!(
    a_lease_has_one_holder_and_fences_the_last_one,
    an_expired_lease_can_be_taken,
    the_cursor_goes_on_where_it_was_advanced_to,
    held_messages_come_back_first_of_their_key_first,
    whoever_removes_the_first_of_a_key_the_next_comes_due,
    a_delayed_message_of_a_held_key_is_told_to_go_behind,
    what_another_of_its_key_stands_before_takes_no_place_for_ever,
    a_filter_passes_over_what_it_keeps_back,
    a_delayed_message_is_told_and_waits_for_its_time,
);
