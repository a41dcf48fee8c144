//! An inbox can be told to work until nothing is left to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use diesel::SqliteConnection;
use inbox::testing::{
    assert_applied_once, assert_not_applied, assert_nothing_parked, assert_parked, pass_time,
};
use inbox::{Context, Ending, Failure, Inbox, Reason, ReplaySafe, Settings};
use message::Message;
use support::broker::{Broker, Corner, rabbitmq};
use support::inbox::{BILLING, Payment, Store};
use transport::memory::MemoryBroker;
use transport::{Publisher as _, Subscriber};

use super::on_both;

on_both!(
    over_memory_it_is_idle_when_the_queue_is_empty,
    over_rabbitmq_it_is_idle_when_the_queue_is_empty,
    what_waits_for_its_time_is_not_waited_for,
    what_arrives_behind_the_count_is_done_too,
    what_comes_back_through_a_lost_broker_is_done_too,
);

const HOUR: Duration = Duration::from_secs(3600);

/// Applies payments; those under ten fail at their first run.
fn inbox<C: Store>(
    db: db::Db<C>,
    broker: impl Subscriber,
    queue: &str,
    settings: Settings,
) -> Inbox<C> {
    Inbox::new(BILLING, db, Arc::new(broker), queue)
        .on(ReplaySafe, |tx: &mut C, payment: &Payment, context: &Context<'_>| {
            if payment.cents < 10 && context.attempt() == 1 {
                return Err(Failure::retry("not yet"));
            }
            C::credit(tx, &payment.account, payment.cents)?;
            Ok(payment.cents)
        })
        .settings(settings)
        .build()
        .expect("builds")
}

fn patient() -> Settings {
    let mut settings = Settings::default();
    settings.backoff = HOUR;
    settings.backoff_max = HOUR;
    settings
}

fn addressed(payment: &Payment, exchange: String) -> Message {
    Message { exchange, routing_key: "ok".to_owned(), ..payment.message() }
}

async fn over_memory_it_is_idle_when_the_queue_is_empty<C: Store>() {
    idle::<C, _>(Corner::new(MemoryBroker::new()), MemoryBroker::clone).await;
}

async fn over_rabbitmq_it_is_idle_when_the_queue_is_empty<C: Store>() {
    idle::<C, _>(Corner::new(rabbitmq()), |_| rabbitmq()).await;
}

/// More than a prefetch, some of it twice, some of it failing at first, and nothing left behind.
async fn idle<C: Store, B: Broker>(corner: Corner<B>, client: impl Fn(&B) -> B) {
    let database = C::database();
    let (exchange, queue) = corner.pair().await;
    let inbox = inbox(C::pool(&database), client(&corner.broker), &queue, patient());
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "nothing");
    for round in 0..3 {
        let payments = (0..100).map(|n| Payment::new(&format!("p{round}-{n}"), n + 1));
        let mut messages: Vec<_> =
            payments.map(|payment| addressed(&payment, exchange.clone())).collect();
        messages.extend_from_within(50..70);
        let mut lane = corner.broker.open_lane().await.expect("a lane");
        lane.publish(&messages).await.expect("published");
        let endings = inbox.run_until_idle().await.expect("runs");
        assert_eq!(endings.of(Ending::Applied), 91, "{endings}");
        assert_eq!(endings.of(Ending::Duplicate), 20, "{endings}");
        assert_eq!(endings.of(Ending::Parked(Reason::Failed)), 9, "{endings}");
        assert_eq!(endings.total(), 120, "{endings}");
        pass_time(&mut C::connection(&database), BILLING, HOUR).expect("passes");
        assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "9 applied");
        let conn = &mut C::connection(&database);
        assert_eq!(C::credits(conn, "a").len(), 100 * (round + 1));
        assert_nothing_parked(conn, BILLING);
    }
    assert_eq!(corner.broker.queue_depth(&queue).await.expect("counted"), Some(0));
    corner.clean().await;
}

async fn what_waits_for_its_time_is_not_waited_for<C: Store>() {
    let (database, feed) = (C::database(), support::feed::Feed::new());
    let inbox = inbox(C::pool(&database), feed.clone(), "q", patient());
    feed.deliver(&Payment::new("p1", 7).message());
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 failed");
    let conn = &mut C::connection(&database);
    assert_eq!(assert_parked(conn, BILLING, Reason::Failed).attempts, 1);
    assert_not_applied(conn, BILLING, &Payment::key("p1"));
    pass_time(conn, BILLING, HOUR).expect("passes");
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 applied");
    assert_eq!(assert_applied_once(conn, BILLING, &Payment::key("p1")).duplicates, 0);
    assert_nothing_parked(conn, BILLING);
}

async fn what_arrives_behind_the_count_is_done_too<C: Store>() {
    let (database, feed) = (C::database(), support::feed::Feed::new());
    let inbox = inbox(C::pool(&database), feed.clone(), "q", patient());
    feed.deliver(&Payment::new("p1", 70).message());
    feed.put_on_its_way();
    assert_eq!(inbox.run_until_idle().await.expect("runs").to_string(), "1 applied");
}

async fn what_comes_back_through_a_lost_broker_is_done_too<C: Store>() {
    let database = C::database();
    let corner = Corner::new(MemoryBroker::new());
    let (exchange, queue) = corner.pair().await;
    let broker = corner.broker.clone();
    let runs = Arc::new(AtomicU64::new(0));
    let seen = runs.clone();
    let inbox = Inbox::new(BILLING, C::pool(&database), Arc::new(broker.clone()), &queue)
        .on(ReplaySafe, move |tx: &mut C, payment: &Payment, _: &Context<'_>| {
            if seen.fetch_add(1, Ordering::SeqCst) == 0 {
                // Its answer is lost, and so it comes again.
                broker.disconnect();
                broker.reconnect();
            }
            Ok(C::credit(tx, &payment.account, payment.cents)?)
        })
        .build()
        .expect("builds");
    let message = addressed(&Payment::new("p1", 70), exchange);
    corner.broker.open_lane().await.expect("a lane").publish(&[message]).await.expect("published");
    let endings = inbox.run_until_idle().await.expect("runs");
    assert_eq!(endings.to_string(), "1 applied, 1 duplicate");
    let conn = &mut C::connection(&database);
    assert_eq!(assert_applied_once(conn, BILLING, &Payment::key("p1")).duplicates, 1);
    assert_eq!((C::credits(conn, "a"), corner.broker.depth(&queue)), (vec![70], 0));
}

#[test]
fn an_assertion_that_fails_says_what_is_parked() {
    let database = SqliteConnection::database();
    let mut conn = SqliteConnection::connection(&database);
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        assert_applied_once(&mut conn, BILLING, &Payment::key("p9"));
    }));
    let text = *failed.expect_err("fails").downcast::<String>().expect("a text");
    assert_eq!(text, "payment.succeeded/p9 was not applied by billing; parked: nothing");
}
