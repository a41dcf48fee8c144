//! Leases, the cursor and what it holds back.

use std::time::Duration;

use db::Backend as _;
use diesel::connection::SimpleConnection;
use outbox::Draft;
use outbox::reader::{Advance, Claim, Held, Hold, HoldReason, HoldResult, LogStore, ReadLimit};
use support::events::Fact;

use super::{LIMIT, Store, TTL, claim, enqueue_facts, numbers};

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

on_every_store!(
    a_lease_has_one_holder_and_fences_the_last_one,
    an_expired_lease_can_be_taken,
    the_cursor_goes_on_where_it_was_advanced_to,
    held_messages_come_back_first_of_their_key_first,
    a_delayed_message_is_told_and_waits_for_its_time,
);
