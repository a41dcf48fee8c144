//! How an operation came again, and what is kept of it.

use std::sync::{Arc, Barrier};
use std::thread;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error;
use inbox::DuplicateKind::{Concurrent, OtherMessage, Redelivery, Replay, SameMessage};
use inbox::{Context, DuplicateKind, Ending, Inbox, Once, OperationVerdict, Outcome, ReplaySafe};
use message::{Fingerprint, name};
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Running, Store, crediting};
use tokio::sync::mpsc;

use super::on_both;

on_both!(
    each_kind_is_counted_under_its_name,
    a_message_without_an_id_is_another_one,
    the_first_end_is_stored_and_no_repeat_changes_it,
    a_stale_operation_is_kept_as_stale,
    a_dropped_result_is_forgotten_and_its_key_is_not,
    an_observer_is_told_the_kind,
);

/// One delivery of an operation, as its transaction sees it.
#[derive(Clone, Copy, Default)]
struct Coming {
    id: Option<&'static str>,
    redelivered: bool,
    replay: bool,
    content: &'static str,
}

fn apply<C: Store>(tx: &mut C, coming: Coming) -> Result<Outcome<String>, Error> {
    let (key, fingerprint) = (Payment::key("p1"), Fingerprint::of_bytes(coming.content.as_bytes()));
    let mut once = Once::new(BILLING, &key, &fingerprint)
        .redelivered(coming.redelivered)
        .replay(coming.replay);
    if let Some(id) = coming.id {
        once = once.message_id(id);
    }
    once.run(tx, |tx| {
        C::credit(tx, "a", 50)?;
        Ok("receipt".to_owned())
    })
}

fn come<C: Store>(conn: &mut C, coming: Coming) -> Outcome<String> {
    conn.write(|tx| apply(tx, coming)).expect("no error")
}

fn counts<C: Store>(conn: &mut C) -> [i64; 5] {
    let row = C::stored(conn, "p1").expect("stored");
    DuplicateKind::ALL.map(|kind| row.duplicates_of(kind))
}

async fn each_kind_is_counted_under_its_name<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let first = Coming { id: Some("m1"), ..Coming::default() };
    assert!(matches!(come(conn, first), Outcome::Applied(_)));
    assert_eq!(counts(conn), [0, 0, 0, 0, 0]);
    let again = [
        (Coming { redelivered: true, ..first }, 3, Redelivery),
        (first, 2, SameMessage),
        (Coming { id: Some("m2"), ..first }, 1, OtherMessage),
        // A broker that delivers another message again says nothing about the first one.
        (Coming { id: Some("m2"), redelivered: true, ..first }, 3, OtherMessage),
        // That it was asked for goes before everything else.
        (Coming { replay: true, redelivered: true, ..first }, 2, Replay),
    ];
    for (coming, times, _) in again {
        for _ in 0..times {
            assert_eq!(come(conn, coming), Outcome::Duplicate("receipt".into()));
        }
    }
    let conflict = Coming { content: "other", replay: true, ..first };
    assert!(matches!(come(conn, conflict), Outcome::Conflict { .. }));
    let row = C::stored(conn, "p1").expect("stored");
    let expected =
        [(Replay, 2), (Concurrent, 0), (Redelivery, 3), (SameMessage, 2), (OtherMessage, 4)];
    assert_eq!(expected.map(|(kind, _)| row.duplicates_of(kind)), expected.map(|(_, n)| n));
    assert_eq!((row.duplicates, row.conflicts), (11, 1));
    assert_eq!(C::credits(conn, "a"), [50]);
}

async fn a_message_without_an_id_is_another_one<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let nameless = Coming { redelivered: true, ..Coming::default() };
    let named = Coming { id: Some("m1"), ..nameless };
    for coming in [nameless, nameless, named] {
        let _ = come(conn, coming);
    }
    assert_eq!(counts(conn), [0, 0, 0, 0, 2]);
}

async fn the_first_end_is_stored_and_no_repeat_changes_it<C: Store>() {
    let database = C::database();
    let conn = &mut C::connection(&database);
    let _ = come(conn, Coming::default());
    let first = C::stored(conn, "p1").expect("stored");
    assert_eq!(first.verdict, OperationVerdict::Applied);
    assert!(first.finished_at >= Some(first.applied_at), "{first:?}");
    assert_eq!(first.result_dropped_at, None);
    let _ = come(conn, Coming::default());
    let again = C::stored(conn, "p1").expect("stored");
    assert_eq!((again.finished_at, again.applied_at), (first.finished_at, first.applied_at));
}

async fn a_stale_operation_is_kept_as_stale<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let builder = Inbox::new(BILLING, C::pool(&database), Arc::new(feed.clone()), "q").on(
        ReplaySafe,
        |_: &mut C, payment: &Payment, context: &Context<'_>| {
            if payment.cents == 0 {
                context.mark_stale();
            }
            Ok(())
        },
    );
    let mut running = Running::start(builder);
    for (payment, cents, verdict) in
        [("p1", 0, OperationVerdict::Stale), ("p2", 1, OperationVerdict::Applied)]
    {
        feed.deliver(&Payment::new(payment, cents).message());
        running.next().await;
        let conn = &mut C::connection(&database);
        assert_eq!(C::stored(conn, payment).expect("stored").verdict, verdict);
    }
    // It took effect all the same: coming again it is a duplicate.
    feed.deliver(&Payment::new("p1", 0).message());
    assert_eq!(running.next().await.ending, Ending::Duplicate);
    running.stop().await;
}

async fn a_dropped_result_is_forgotten_and_its_key_is_not<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let mut running = Running::start(crediting(C::pool(&database), Arc::new(feed.clone()), "q"));
    let message = Payment::new("p1", 50).message();
    feed.deliver(&message);
    assert_eq!(running.next().await.ending, Ending::Applied);

    let conn = &mut C::connection(&database);
    conn.batch_execute("UPDATE inbox_operations SET result = NULL, result_dropped_at = applied_at")
        .expect("drops");
    let row = C::stored(conn, "p1").expect("stored");
    assert_eq!((row.result, row.result_dropped_at), (None, Some(row.applied_at)));
    let (key, fingerprint) = (Payment::key("p1"), row.fingerprint);
    let once = Once::new(BILLING, &key, &fingerprint);
    let outcome: Outcome<String> =
        conn.write(|tx| once.run(tx, |_| Err(Error::NotFound))).expect("no error");
    assert!(
        matches!(outcome, Outcome::Forgotten { applied_at, .. } if applied_at == row.applied_at),
        "{outcome:?}"
    );
    feed.deliver(&message);
    assert_eq!(running.next().await.ending, Ending::Duplicate);
    // Other content is told from the same without any result.
    feed.deliver(&Payment::new("p1", 51).message());
    assert_eq!(running.next().await.ending, support::inbox::parked(inbox::Reason::Conflict));
    let row = C::stored(conn, "p1").expect("stored");
    assert_eq!((row.duplicates, row.conflicts), (2, 1));
    assert_eq!(C::credits(conn, "a"), [50]);
    running.stop().await;
}

async fn an_observer_is_told_the_kind<C: Store>() {
    let database = C::database();
    let feed = Feed::new();
    let (tell, mut told) = mpsc::unbounded_channel();
    let inbox = crediting(C::pool(&database), Arc::new(feed.clone()), "q")
        .concurrency(1)
        .observe(move |ended| {
            let _ = tell.send((ended.ending, ended.duplicate));
        })
        .build()
        .expect("builds");
    let message = Payment::new("p1", 50).message();
    let again = |replay: bool| {
        feed.deliver_raw(|delivery| {
            delivery.message_id = Some(message.id.to_string());
            delivery.kind = Some(message.kind.clone());
            delivery.headers = message.headers.clone();
            delivery.headers.insert(name::OPERATION, message.operation.clone());
            if replay {
                delivery.headers.insert(name::REPLAY, "replay-1");
            }
            delivery.payload = message.payload.clone();
            delivery.redelivered = true;
        });
    };
    feed.deliver(&message);
    feed.deliver(&message);
    again(false);
    again(true);
    feed.deliver(&Payment::new("p1", 50).message());
    let expected = [
        (Ending::Applied, None),
        (Ending::Duplicate, Some(SameMessage)),
        (Ending::Duplicate, Some(Redelivery)),
        (Ending::Duplicate, Some(Replay)),
        (Ending::Duplicate, Some(OtherMessage)),
    ];
    let watched = async {
        for expected in expected {
            assert_eq!(told.recv().await, Some(expected));
        }
    };
    inbox.run(watched).await.expect("stops well");
}

#[test]
fn whoever_began_before_the_first_ended_is_concurrent() {
    const RIVALS: usize = 8;
    let database = PgConnection::database();
    let together = Arc::new(Barrier::new(RIVALS));
    let rivals: Vec<_> = (0..RIVALS)
        .map(|_| {
            let (mut conn, together) = (PgConnection::connection(&database), together.clone());
            thread::spawn(move || {
                conn.transaction(|tx| {
                    tx.batch_execute("SELECT 1")?;
                    // All have begun before any of them can have ended.
                    together.wait();
                    apply(tx, Coming { id: Some("m1"), redelivered: true, ..Coming::default() })
                })
                .expect("no error")
            })
        })
        .collect();
    let outcomes: Vec<_> =
        rivals.into_iter().map(|rival| rival.join().expect("no panic")).collect();
    let applied = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Applied(_)));
    assert_eq!(applied.count(), 1, "{outcomes:?}");
    let conn = &mut PgConnection::connection(&database);
    assert_eq!(counts(conn), [0, 7, 0, 0, 0]);
    // Who comes after the end is not.
    let _ = come(conn, Coming { id: Some("m1"), ..Coming::default() });
    assert_eq!(counts(conn), [0, 7, 0, 1, 0]);
}
