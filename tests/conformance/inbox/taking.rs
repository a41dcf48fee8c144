//! How parked messages are taken from the lot, and that they are what they were.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use inbox::{Ending, Failure, ParkedState, Reason};
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Running, Store, parked};

use super::on_both;
use super::ordered::{Log, keyed, logging, ordered};
use super::retrying::deciding;

on_both!(
    a_retry_has_the_operation_of_the_first_time,
    what_was_begun_too_often_is_for_a_person_and_its_company_is_not,
    what_turns_out_to_hold_up_nothing_lets_the_next_of_its_key_go_on,
);

const HOUR: Duration = Duration::from_secs(3600);

async fn a_retry_has_the_operation_of_the_first_time<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let made = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let builder = deciding(C::pool(&database), &feed, move |_, context| {
        assert_eq!(context.incoming().timestamp, Some(made));
        counted.fetch_add(1, Ordering::SeqCst);
        if context.attempt() == 1 { Err(Failure::retry("not yet")) } else { Ok(()) }
    });
    // A key that its redelivery does not have: only the first sight of the message decides.
    let asked = Arc::new(AtomicU32::new(0));
    let builder = builder.operation_key("payment.succeeded", move |incoming| {
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        incoming.timestamp.filter(|_| first)?;
        message::OperationKey::new("foreign", "f1").ok()
    });
    let mut running = Running::start(builder);
    let payment = Payment::new("p1", 7).message();
    feed.deliver_raw(|delivery| {
        delivery.kind = Some(payment.kind.clone());
        delivery.payload = payment.payload.clone();
        delivery.timestamp = Some(made);
    });
    assert_eq!(running.by_attempts(2).await, [(parked(Reason::Failed), 1), (Ending::Applied, 2)]);
    let conn = &mut C::connection(&database);
    let foreign = message::OperationKey::new("foreign", "f1").expect("valid");
    assert!(inbox::operation(conn, BILLING, &foreign).expect("reads").is_some());
    assert_eq!((C::stored(conn, "p1"), runs.load(Ordering::SeqCst)), (None, 2));
    running.stop().await;
}

async fn what_was_begun_too_often_is_for_a_person_and_its_company_is_not<C: Store>() {
    let (database, feed) = (C::database(), Feed::new());
    let mut running = Running::start(deciding(C::pool(&database), &feed, |_, context| {
        if context.attempt() == 1 { Err(Failure::retry_after(HOUR, "closed")) } else { Ok(()) }
    }));
    for payment in ["culprit", "company"] {
        feed.deliver(&Payment::new(payment, 1).message());
        assert_eq!(running.next().await.ending, parked(Reason::Failed));
    }
    running.stop().await;
    // As three processes leave it that died with the one while the other was waiting for its place.
    let conn = &mut C::connection(&database);
    conn.batch_execute(
        "UPDATE inbox_parked SET starts = 3, epoch = 3 WHERE operation = 'culprit';
         UPDATE inbox_parked SET epoch = 3 WHERE operation = 'company'",
    )
    .expect("writes");
    inbox::testing::pass_time(conn, BILLING, HOUR).expect("passes");
    let mut running = Running::start(deciding(C::pool(&database), &feed, |_, _| Ok(())));
    assert_eq!(running.endings(2).await, [Ending::Applied, parked(Reason::Crashed)]);
    let rows = C::parked(conn);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.reason, row.state), (Reason::Crashed, ParkedState::Review));
    assert_eq!(row.operation.as_ref().map(|(_, id)| id.as_str()), Some("culprit"));
    running.stop().await;
}

async fn what_turns_out_to_hold_up_nothing_lets_the_next_of_its_key_go_on<C: Store>() {
    let (database, feed, log) = (C::database(), Feed::new(), Log::default());
    let mut settings = ordered();
    settings.retry_poll = HOUR;
    let builder = logging(C::pool(&database), &feed, &log, |payment| {
        if payment.payment == "a1" && payment.account == "a" {
            return Err(Failure::retry_after(Duration::from_millis(100), "closed"));
        }
        Ok(())
    });
    let mut running = Running::start(builder.concurrency(1).settings(settings));
    feed.deliver(&keyed("a", "a1"));
    assert_eq!(running.next().await.ending, parked(Reason::Failed));
    feed.deliver(&keyed("a", "a2"));
    // The first one may be due again before the second has come.
    while running.next().await.ending != parked(Reason::Behind) {}
    // The operation takes effect with other content, and the first one's retry is a conflict.
    feed.deliver(&Payment { account: "b".to_owned(), ..Payment::new("a1", 9) }.message());
    let mut endings = Vec::new();
    while endings.iter().filter(|ending| **ending == Ending::Applied).count() < 2 {
        endings.push(running.next().await.ending);
    }
    assert!(endings.contains(&parked(Reason::Conflict)), "{endings:?}");
    assert_eq!(log.lock().unwrap()["a"], ["a2"]);
    running.stop().await;
}

/// The planner takes a lot that was next to empty when it was last looked at for small, and a join for the
/// way to pick from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_more_is_taken_than_there_is_room_for() {
    support::bounded(async {
        let (database, feed) = (diesel::PgConnection::database(), Feed::new());
        let conn = &mut diesel::PgConnection::connection(&database);
        conn.batch_execute(
            "INSERT INTO inbox_parked (consumer, reason, detail, attempts, digest, exchange, routing_key, headers, payload, state, not_before)
             VALUES ('billing', 'failed', '', 1, sha256('0'), 'e', 'r', '{}', 'x', 'retry', now() + interval '1 day');
             ANALYZE inbox_parked;
             INSERT INTO inbox_parked (consumer, reason, detail, attempts, digest, exchange, routing_key, headers, payload, state, not_before)
             SELECT 'billing', 'failed', '', 1, sha256(n::text::bytea), 'e', 'r', '{}', 'x', 'retry', now() - interval '1 day'
             FROM generate_series(1, 200) n",
        )
        .expect("fills");
        let pool = diesel::PgConnection::pool(&database);
        let builder = deciding::<diesel::PgConnection>(pool, &feed, |_, _| Ok(()));
        let mut running = Running::start(builder.concurrency(1));
        // All of them are of no kind; the first ones are told while the others are due.
        let mut most = 0;
        for _ in 0..200 {
            assert_eq!(running.next().await.ending, parked(Reason::UnknownKind));
            let taken = diesel::select(diesel::dsl::sql::<diesel::sql_types::BigInt>(
                "(SELECT count(*) FROM inbox_parked WHERE state = 'retry' AND epoch > 0)",
            ));
            most = most.max(diesel::RunQueryDsl::get_result::<i64>(taken, conn).expect("counts"));
        }
        assert!((0..=2).contains(&most), "{most} were taken at once");
        running.stop().await;
    })
    .await;
}
