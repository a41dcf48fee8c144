//! What operators do to held messages.

use diesel::connection::SimpleConnection;
use outbox::admin::{AdminError, AdminStore, Changed, HoldInfo, Order, Selection};
use support::events::Fact;

use super::{Store, enqueue_facts};

fn order() -> Order {
    Order::new("anna@desk", "the queue is bound now")
}

fn dry() -> Order {
    Order { dry_run: true, ..order() }
}

fn only(seq: i64) -> Selection {
    Selection { seqs: Some(vec![seq]), ..Selection::default() }
}

fn all(conn: &mut impl AdminStore) -> Vec<HoldInfo> {
    conn.holds("relay", &Selection::default()).expect("reads")
}

fn states(conn: &mut impl AdminStore) -> Vec<(i64, String, String)> {
    all(conn).into_iter().map(|hold| (hold.seq, hold.state, hold.reason)).collect()
}

/// Seven messages, one held for each of these: (state, reason, attempts, key). The last has no row.
const HELD: [(&str, &str, i32, &str); 7] = [
    ("dead", "unroutable", 20, "'a'"),
    ("waiting", "behind", 0, "'a'"),
    ("waiting", "nacked", 3, "NULL"),
    ("dead", "poison", 0, "NULL"),
    ("dead", "poison", 1, "'b'"),
    ("waiting", "delayed", 0, "NULL"),
    ("dead", "nacked", 20, "NULL"),
];

fn held<S: Store>(conn: &mut S::Conn) {
    let facts: Vec<Fact> = (1..=6).map(Fact::keyless).collect();
    enqueue_facts::<S>(conn, &facts);
    for (at, (state, reason, attempts, key)) in HELD.iter().enumerate() {
        // A time far ahead, in either store's form.
        conn.batch_execute(&format!(
            "INSERT INTO outbox_holds (cursor, seq, state, reason, attempts, not_before, ordering_key, last_error)
             SELECT 'relay', {}, '{state}', '{reason}', {attempts}, max(created_at), {key}, 'why' FROM outbox_cursors",
            at + 1
        ))
        .expect("holds");
    }
}

fn held_messages_are_listed_with_what_they_are<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    held::<S>(&mut conn);
    let holds = all(&mut conn);
    assert_eq!(holds.len(), 7);
    let first = &holds[0];
    let message = first.message.as_ref().expect("in the log");
    assert_eq!((&first.last_error[..], first.attempts), ("why", 20));
    assert_eq!((&message.kind[..], &message.routing_key[..]), ("test.fact", "test.fact"));
    assert!(holds[6].message.is_none(), "its row is gone");
    let count = |conn: &mut S::Conn, which| conn.holds("relay", &which).expect("reads").len();
    let default = Selection::default;
    assert_eq!(count(&mut conn, Selection { state: Some("dead".into()), ..default() }), 4);
    assert_eq!(count(&mut conn, Selection { reason: Some("poison".into()), ..default() }), 2);
    assert_eq!(count(&mut conn, Selection { key: Some("a".into()), ..default() }), 2);
    assert_eq!(count(&mut conn, Selection { seqs: Some(vec![1, 3, 99]), ..default() }), 2);
    assert_eq!(count(&mut conn, Selection { limit: 3, ..default() }), 3);
    assert_eq!(conn.holds("other", &default()).expect("reads"), []);
    let counts = conn.hold_counts().expect("counts");
    assert_eq!(counts.iter().map(|group| group.count).sum::<i64>(), 7);
    assert!(counts.iter().any(|g| g.state == "dead" && g.reason == "poison" && g.count == 2));
}

fn dead_messages_are_retried_but_not_what_is_no_message<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    held::<S>(&mut conn);
    let before = states(&mut conn);
    let expected = Changed { changed: 2, refused: 2 };
    assert_eq!(conn.retry_holds("relay", &Selection::default(), &dry()).expect("looks"), expected);
    assert_eq!(states(&mut conn), before);
    assert!(conn.audit(1).expect("reads").is_empty());
    assert_eq!(
        conn.retry_holds("relay", &Selection::default(), &order()).expect("writes"),
        expected
    );
    let after = all(&mut conn);
    let waiting = |at: usize| after[at].state == "waiting" && after[at].attempts == 0;
    assert!(waiting(0) && waiting(4), "{after:?}");
    assert!(after[3].state == "dead" && after[6].state == "dead", "{after:?}");
    assert_eq!(after[2].attempts, 3, "a waiting one is none of this");
    let entry = conn.audit(1).expect("reads").remove(0);
    assert_eq!((&entry.action[..], &entry.reason[..]), ("holds.retry", "the queue is bound now"));
    let detail: serde_json::Value = serde_json::from_str(&entry.detail).expect("JSON");
    assert_eq!((detail["changed"].as_i64(), detail["refused"].as_i64()), (Some(2), Some(2)));
    assert!(matches!(
        conn.retry_holds("rely", &Selection::default(), &order()),
        Err(AdminError::UnknownCursor { .. })
    ));
}

fn discarding_a_dead_one_lets_the_next_of_its_key_go<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    held::<S>(&mut conn);
    assert_eq!(
        conn.discard_holds("relay", &only(3), &order()).expect("looks").changed,
        0,
        "waiting"
    );
    assert_eq!(conn.discard_holds("relay", &only(1), &dry()).expect("looks").changed, 1);
    assert_eq!(all(&mut conn).len(), 7);
    assert_eq!(conn.discard_holds("relay", &only(1), &order()).expect("discards").changed, 1);
    let left = states(&mut conn);
    assert_eq!(left[0], (2, "waiting".into(), "released".into()));
    assert_eq!(left.len(), 6);
    assert_eq!(
        conn.discard_holds("relay", &Selection::default(), &order()).expect("discards").changed,
        3
    );
    assert_eq!(
        conn.audit(9).expect("reads").iter().map(|entry| &entry.action[..]).collect::<Vec<_>>(),
        ["holds.discard"; 2]
    );
}

fn waiting_messages_are_tried_now_and_delayed_ones_only_by_name<S: Store>() {
    let database = S::database();
    let mut conn = S::connect(&database);
    held::<S>(&mut conn);
    conn.batch_execute(
        "UPDATE outbox_holds SET not_before = (SELECT max(created_at) FROM outbox_messages)",
    )
    .expect("sets");
    let first = all(&mut conn)[0].not_before;
    let moved = |conn: &mut S::Conn| -> Vec<i64> {
        all(conn).iter().filter(|hold| hold.not_before != first).map(|hold| hold.seq).collect()
    };
    let now = |conn: &mut S::Conn, which: &Selection| {
        conn.try_holds_now("relay", which, &order()).expect("writes").changed
    };
    assert_eq!(
        conn.try_holds_now("relay", &Selection::default(), &dry()).expect("looks").changed,
        1
    );
    assert_eq!(moved(&mut conn), [] as [i64; 0]);
    assert_eq!(now(&mut conn, &Selection::default()), 1);
    assert_eq!(moved(&mut conn), [3]);
    assert_eq!(now(&mut conn, &only(2)), 0, "behind another one");
    assert_eq!(now(&mut conn, &only(1)), 0, "dead");
    let delayed = Selection { reason: Some("delayed".into()), ..Selection::default() };
    assert_eq!(now(&mut conn, &delayed), 1);
    assert_eq!(moved(&mut conn), [3, 6]);
}

on_every_store!(
    held_messages_are_listed_with_what_they_are,
    dead_messages_are_retried_but_not_what_is_no_message,
    discarding_a_dead_one_lets_the_next_of_its_key_go,
    waiting_messages_are_tried_now_and_delayed_ones_only_by_name,
);
