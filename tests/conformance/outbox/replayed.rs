//! What of the history a replay selects, and who may work on one.

use std::time::{Duration, SystemTime};

use diesel::connection::SimpleConnection;
use message::MessageId;
use outbox::Draft;
use outbox::admin::{AdminError, AdminStore, Order};
use outbox::replay::{
    Fenced, NewReplay, ReplayEnd, ReplayJob, ReplayState, ReplayStore, Selection, plan,
};
use support::events::Fact;

use super::{LIMIT, Store, TTL, enqueue_facts};

fn order() -> Order {
    Order::new("anna@desk", "the read model lost a day")
}

fn new(selection: Selection) -> NewReplay {
    NewReplay {
        consumer: "billing".into(),
        queue: "billing-queue".into(),
        forced: false,
        selection,
        rate: 100,
        allow_gap: false,
    }
}

fn everything() -> Selection {
    Selection::default()
}

fn started<S: Store>(conn: &mut S::Conn, new: &NewReplay) -> Result<ReplayJob, AdminError>
where
    S::Conn: ReplayStore,
{
    let plan = plan(conn, &new.selection)?;
    conn.start_replay(new, &plan, "first", TTL, &order())
}

/// Numbers of the facts that a replay of a selection reads, one row at a time.
fn numbers<S: Store>(conn: &mut S::Conn, selection: Selection) -> Vec<i64>
where
    S::Conn: ReplayStore,
{
    let mut job = started::<S>(conn, &new(selection)).expect("starts");
    let mut numbers = Vec::new();
    let one = outbox::reader::ReadLimit { rows: 1, ..LIMIT };
    loop {
        let piece = conn.read_history(&job, job.position, one).expect("reads");
        numbers.extend(
            piece.entries.iter().map(|entry| Fact::from_payload(&entry.message.payload).number),
        );
        job.position = piece.next;
        if piece.exhausted {
            assert_eq!(numbers.len() as u64, job.total);
            return numbers;
        }
    }
}

fn each_restriction_restricts_and_all_must_fit<S: Store>()
where
    S::Conn: ReplayStore,
{
    let database = S::database();
    let mut conn = S::connect(&database);
    let facts = [Fact::of("a", 1), Fact::of("b", 2), Fact::of("a", 3), Fact::keyless(4)];
    let ids: Vec<MessageId> = enqueue_facts::<S>(&mut conn, &facts);
    db::Backend::write(&mut conn, |tx| {
        Draft::of(&Fact::keyless(5)).deliver_after(Duration::from_secs(3_600)).enqueue(tx)
    })
    .expect("enqueues what is not due and no history");
    let chosen = |change: &dyn Fn(&mut Selection)| {
        let mut selection = everything();
        change(&mut selection);
        selection
    };
    let hour = Duration::from_secs(3_600);
    let (earlier, later) = (SystemTime::now() - hour, SystemTime::now() + hour);
    let cases: [(Selection, &[i64]); 11] = [
        (everything(), &[1, 2, 3, 4]),
        (chosen(&|s| s.from_seq = Some(2)), &[2, 3, 4]),
        (chosen(&|s| s.to_seq = Some(2)), &[1, 2]),
        (chosen(&|s| s.kinds = Some(vec!["test.fact".into()])), &[1, 2, 3, 4]),
        (chosen(&|s| s.keys = Some(vec!["a".into()])), &[1, 3]),
        (chosen(&|s| s.keys = Some(vec!["a".into(), "b".into()])), &[1, 2, 3]),
        (chosen(&|s| s.operations = Some(vec!["keyless-4".into(), "b-2".into()])), &[2, 4]),
        (chosen(&|s| s.ids = Some(vec![ids[3], ids[0]])), &[1, 4]),
        (chosen(&|s| s.until = Some(later)), &[1, 2, 3, 4]),
        (chosen(&|s| (s.from_seq, s.keys) = (Some(2), Some(vec!["a".into()]))), &[3]),
        (chosen(&|s| (s.since, s.until) = (Some(earlier), Some(later))), &[1, 2, 3, 4]),
    ];
    for (selection, expected) in cases {
        assert_eq!(numbers::<S>(&mut conn, selection.clone()), expected, "{selection:?}");
    }
    for nothing in [
        chosen(&|s| s.since = Some(later)),
        chosen(&|s| s.until = Some(earlier)),
        chosen(&|s| s.kinds = Some(vec!["another".into()])),
        chosen(&|s| s.from_seq = Some(5)),
    ] {
        assert!(
            matches!(
                started::<S>(&mut conn, &new(nothing.clone())),
                Err(AdminError::NothingSelected)
            ),
            "{nothing:?}"
        );
    }
}

fn what_is_gone_from_the_log_is_said<S: Store>()
where
    S::Conn: ReplayStore,
{
    let database = S::database();
    let mut conn = S::connect(&database);
    let ids = enqueue_facts::<S>(&mut conn, &[1, 2, 3, 4].map(Fact::keyless));
    conn.batch_execute("DELETE FROM outbox_messages WHERE seq <= 2").expect("as the purge does");
    let from = Selection { from_seq: Some(1), ..everything() };
    let since = Selection { since: Some(SystemTime::UNIX_EPOCH), ..everything() };
    for gone in [from, since] {
        assert!(plan(&mut conn, &gone).expect("counts").gap);
        let refused = started::<S>(&mut conn, &new(gone.clone()));
        assert!(matches!(refused, Err(AdminError::HistoryGone { first_kept: 3 })), "{gone:?}");
        let allowed = NewReplay { allow_gap: true, ..new(gone) };
        assert_eq!(started::<S>(&mut conn, &allowed).expect("starts").total, 2);
    }
    let by_id = Selection { ids: Some(vec![ids[0], ids[3]]), ..everything() };
    assert_eq!(plan(&mut conn, &by_id).expect("counts").missing_ids, [ids[0]]);
    match started::<S>(&mut conn, &new(by_id)) {
        Err(AdminError::MissingIds { count: 1, first }) => assert_eq!(first, ids[0]),
        other => panic!("{other:?}"),
    }
    // All of what is kept is all of it; how far back that reaches stands in the record.
    let job = started::<S>(&mut conn, &new(everything())).expect("starts");
    assert_eq!(conn.replay(job.id).expect("there").first_kept, 3);
    // What retention takes while it runs is told at the end.
    assert_eq!(conn.advance_replay(&job, 3, 1, 0).expect("writes"), Fenced::Done);
    conn.batch_execute("DELETE FROM outbox_messages").expect("as the purge does");
    let rest = conn.read_history(&job, 3, LIMIT).expect("reads");
    assert!(rest.entries.is_empty() && rest.exhausted);
    assert_eq!(conn.end_replay(&job, &ReplayEnd::Done).expect("writes"), Fenced::Done);
    assert_eq!(conn.replay(job.id).expect("there").deleted_meanwhile(), 1);
}

/// Of two that resume one replay, one is refused; who has lost it writes nothing.
fn one_works_on_a_replay_at_a_time<S: Store>()
where
    S::Conn: ReplayStore,
{
    let database = S::database();
    let mut conn = S::connect(&database);
    enqueue_facts::<S>(&mut conn, &[1, 2, 3].map(Fact::keyless));
    let first = started::<S>(&mut conn, &new(everything())).expect("starts");
    match conn.resume_replay(first.id, "second", TTL, &order()) {
        Err(AdminError::ReplayHeld { owner, remaining, .. }) => {
            assert_eq!(owner, "first");
            assert!(remaining <= TTL && remaining > Duration::from_secs(1), "{remaining:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(conn.advance_replay(&first, 1, 1, 0).expect("writes"), Fenced::Done);
    // Its lease ends.
    conn.batch_execute("UPDATE outbox_replays SET lease_until = started_at").expect("ages it");
    let second = conn.resume_replay(first.id, "second", TTL, &order()).expect("takes it");
    assert_eq!((second.position, second.sent), (1, 1));
    assert!(matches!(
        conn.resume_replay(first.id, "third", TTL, &order()),
        Err(AdminError::ReplayHeld { .. })
    ));
    // The first wakes up.
    assert_eq!(conn.advance_replay(&first, 3, 3, 0).expect("asks"), Fenced::Lost);
    assert_eq!(conn.end_replay(&first, &ReplayEnd::Done).expect("asks"), Fenced::Lost);
    let info = conn.replay(first.id).expect("there");
    assert_eq!((info.position, info.sent, info.state), (1, 1, ReplayState::Running));
    assert_eq!(info.holder.expect("held").owner, "second");
    // Written twice, as after a lost answer.
    for _ in 0..2 {
        assert_eq!(conn.advance_replay(&second, 3, 2, 1).expect("writes"), Fenced::Done);
    }
    let info = conn.replay(first.id).expect("there");
    assert_eq!((info.sent, info.unsendable), (2, 1));
}

fn a_replay_is_recorded_from_start_to_end<S: Store>()
where
    S::Conn: ReplayStore,
{
    let database = S::database();
    let mut conn = S::connect(&database);
    enqueue_facts::<S>(&mut conn, &[1, 2, 3].map(Fact::keyless));
    let selection = Selection { kinds: Some(vec!["test.fact".into()]), ..everything() };
    let asked = NewReplay { forced: true, ..new(selection.clone()) };
    let job = started::<S>(&mut conn, &asked).expect("starts");
    let failed = ReplayEnd::Failed("no queue".into());
    assert_eq!(conn.end_replay(&job, &failed).expect("writes"), Fenced::Done);
    let info = conn.replay(job.id).expect("there");
    assert_eq!((info.state, &info.last_error[..]), (ReplayState::Failed, "no queue"));
    assert!(info.finished_at.is_some() && info.holder.is_none());
    let job = conn.resume_replay(job.id, "again", TTL, &order()).expect("resumes");
    assert_eq!(conn.end_replay(&job, &ReplayEnd::Stopped).expect("writes"), Fenced::Done);
    let job = conn.resume_replay(job.id, "again", TTL, &order()).expect("nobody has it");
    let dry = Order { dry_run: true, ..order() };
    conn.cancel_replay(job.id, &dry).expect("looks");
    assert_eq!(conn.advance_replay(&job, 1, 1, 0).expect("writes"), Fenced::Done);
    conn.cancel_replay(job.id, &order()).expect("cancels");
    assert_eq!(conn.advance_replay(&job, 2, 2, 0).expect("asks"), Fenced::Cancelled);
    assert_eq!(conn.end_replay(&job, &ReplayEnd::Done).expect("asks"), Fenced::Cancelled);
    for refused in [
        conn.resume_replay(job.id, "again", TTL, &order()).map(drop),
        conn.cancel_replay(job.id, &order()),
    ] {
        assert!(matches!(refused, Err(AdminError::ReplayOver { state: "cancelled", .. })));
    }
    assert!(matches!(
        conn.cancel_replay(4711, &order()),
        Err(AdminError::UnknownReplay { id: 4711 })
    ));
    for order in [Order::new("", "why"), Order::new("anna", " ")] {
        let plan = plan(&mut conn, &selection).expect("counts");
        let refused = conn.start_replay(&asked, &plan, "o", TTL, &order);
        assert!(matches!(refused, Err(AdminError::Unusable { .. })));
    }
    let done = started::<S>(&mut conn, &new(everything())).expect("starts");
    assert_eq!(conn.end_replay(&done, &ReplayEnd::Done).expect("writes"), Fenced::Done);
    let all = conn.replays(10).expect("reads");
    assert_eq!(
        all.iter().map(|info| (info.id, info.state)).collect::<Vec<_>>(),
        [(done.id, ReplayState::Done), (job.id, ReplayState::Cancelled)]
    );
    let old = &all[1];
    assert_eq!(
        (&old.consumer[..], &old.queue[..], old.forced, old.rate, &old.selection),
        ("billing", "billing-queue", true, 100, &selection)
    );
    assert_eq!((&old.actor[..], &old.reason[..]), ("anna@desk", "the read model lost a day"));
    let audit = conn.audit(100).expect("reads");
    let actions: Vec<_> = audit.iter().map(|entry| &entry.action[..]).collect();
    assert_eq!(
        actions,
        ["replay.start", "replay.cancel", "replay.resume", "replay.resume", "replay.start"]
    );
    assert!(audit[4].detail.contains("test.fact"), "{}", audit[4].detail);
}

on_every_store!(
    each_restriction_restricts_and_all_must_fit,
    what_is_gone_from_the_log_is_said,
    one_works_on_a_replay_at_a_time,
    a_replay_is_recorded_from_start_to_end,
);

/// Two sessions at the same moment: the row's lock lets one of them have it.
#[test]
fn of_two_resumes_at_the_same_moment_one_is_refused() {
    let database = support::database::Database::postgres();
    let mut conn = database.pg();
    enqueue_facts::<super::Postgres>(&mut conn, &[1, 2].map(Fact::keyless));
    let job = started::<super::Postgres>(&mut conn, &new(everything())).expect("starts");
    assert_eq!(conn.end_replay(&job, &ReplayEnd::Stopped).expect("writes"), Fenced::Done);
    let barrier = std::sync::Barrier::new(2);
    let taken: usize = std::thread::scope(|scope| {
        let resume = |owner: &'static str| {
            let (mut conn, barrier, id) = (database.pg(), &barrier, job.id);
            scope.spawn(move || {
                barrier.wait();
                match conn.resume_replay(id, owner, TTL, &order()) {
                    Ok(_) => 1,
                    Err(AdminError::ReplayHeld { .. }) => 0,
                    Err(other) => panic!("{other}"),
                }
            })
        };
        let (one, other) = (resume("one"), resume("other"));
        one.join().expect("no panic") + other.join().expect("no panic")
    });
    assert_eq!(taken, 1);
}
