//! One message among many kills every process that begins it, and each is started again. After so many
//! starts as the settings allow it is parked as crashed; what was in the same processes beside it, in
//! work, in the same batch or waiting, is applied once and suspected of nothing.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use diesel::{PgConnection, SqliteConnection};
use inbox::{ParkedState, Reason, Settings};
use message::Message;
use support::broker::{Corner, rabbitmq};
use support::inbox::{BILLING, DEADLY, Payment, Store};
use support::process::Process;
use transport::Publisher;

/// More than one process has at a time, so that some come after the deadly one and some beside it.
const NEIGHBOURS: i64 = 60;
/// Longer than any lease.
const HOUR: Duration = Duration::from_secs(3600);

/// A first delivery is not counted: that process dies as well.
const FIRST_AND_LIMIT: u32 = 4;
/// A retry is, from the first one on.
const LIMIT: u32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn one_by_one_on_postgres() {
    support::bounded(scenario::<PgConnection>("at-once", 1, FIRST_AND_LIMIT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_batch_on_postgres() {
    support::bounded(scenario::<PgConnection>("at-once", 16, FIRST_AND_LIMIT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_is_retried_on_postgres() {
    support::bounded(scenario::<PgConnection>("retried", 1, LIMIT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_by_one_on_sqlite() {
    support::bounded(scenario::<SqliteConnection>("at-once", 1, FIRST_AND_LIMIT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_batch_on_sqlite() {
    support::bounded(scenario::<SqliteConnection>("at-once", 16, FIRST_AND_LIMIT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_is_retried_on_sqlite() {
    support::bounded(scenario::<SqliteConnection>("retried", 1, LIMIT)).await;
}

async fn scenario<C: Store>(when: &str, batch: usize, expected_deaths: u32) {
    assert_eq!(Settings::default().crash_limit, LIMIT);
    let database = C::database();
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.pair().await;
    let mut messages: Vec<Message> =
        (1..=NEIGHBOURS).map(|cents| Payment::new(&format!("p{cents}"), cents).message()).collect();
    // With neighbours before it, beside it and behind it.
    messages.insert(5, Payment::new(DEADLY, 1_000_000).message());
    for message in &mut messages {
        (message.exchange, message.routing_key) = (exchange.clone(), "ok".into());
    }
    let deadly = messages[5].id.to_string();
    corner.broker.open_lane().await.expect("a lane").publish(&messages).await.expect("published");

    let conn = &mut C::connection(&database);
    let batch = batch.to_string();
    let orders = [C::NAME, when, &batch, &database.url, &queue];
    let mut deaths = 0;
    loop {
        let mut consumer = Process::start("deadly_consumer", &orders, &[]);
        let mut died = false;
        support::eventually("the process dies, or all is done", async || {
            died = consumer.has_ended();
            died || done(conn)
        })
        .await;
        if !died {
            consumer.terminate();
            let status = consumer.finish();
            assert!(status.success(), "{status:?} after {deaths}: {}", consumer.output);
            break;
        }
        let status = consumer.finish();
        assert_eq!(status.signal(), Some(6), "{status:?}: {}", consumer.output);
        deaths += 1;
        assert!(deaths <= expected_deaths, "it is never given up");
        // The leases of what the dead one had taken from the parking lot end.
        inbox::testing::pass_time(conn, BILLING, HOUR).expect("passes");
    }

    assert_eq!(deaths, expected_deaths);
    let rows = C::parked(conn);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.reason, row.state), (Reason::Crashed, ParkedState::Review));
    assert_eq!(row.message_id, Some(deadly));
    assert_eq!(row.detail, format!("begun {LIMIT} times without ever coming to an end"));
    let mut applied = C::credits(conn, "a");
    applied.sort_unstable();
    assert_eq!(applied, (1..=NEIGHBOURS).collect::<Vec<_>>());
    assert_eq!(C::stored(conn, DEADLY), None);
    assert_eq!(C::starts(conn), 0);
    support::eventually("everything is acknowledged", async || corner.depth(&queue).await == 0)
        .await;
    corner.clean().await;
}

/// Whether the deadly one is given up and nothing else waits for anything.
fn done<C: Store>(conn: &mut C) -> bool {
    let rows = C::parked(conn);
    let given_up = matches!(&rows[..], [row] if row.state == ParkedState::Review);
    given_up && C::credits(conn, "a").len() as i64 >= NEIGHBOURS
}
