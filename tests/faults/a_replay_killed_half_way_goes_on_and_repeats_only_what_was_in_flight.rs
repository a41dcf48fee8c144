//! SIGKILL of `relay replay` in the middle, several times: resumed, it goes on behind the last batch
//! that was confirmed. Every message of the history arrives, a kill repeats at most the batch in flight,
//! and of two that resume it at once one is refused.

use std::time::Duration;

use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use outbox::replay::{ReplayState, ReplayStore};
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::ledger::{Arrived, Ledger};
use support::process::Process;
use support::roles::LeastPrivileged;

const KILLS: usize = 3;
const MESSAGES: usize = 4_000;
const KEYS: usize = 25;
/// At this rate, what is in flight.
const BATCH: usize = 200;
const RATE: &str = "1000";

#[tokio::test(flavor = "multi_thread")]
async fn killed_three_times() {
    let database = Database::postgres();
    let roles = LeastPrivileged::on(&database);
    let corner = Corner::new(rabbitmq());
    let (exchange, everybody) = corner.fanout().await;
    let queue = corner.queue("billing").await;
    let mut ledger = Ledger::new();
    let mut conn = database.pg();
    ledger.produce(&mut conn, &exchange, KEYS, MESSAGES);

    let amqp_url = support::services::amqp_url();
    let env = [
        ("RELAY_DATABASE_URL", &roles.admin[..]),
        ("RELAY_AMQP_URL", &amqp_url),
        ("RELAY_LEASE", "2s"),
    ];
    let relay = |args: &[&str]| Process::start("relay", &[&["replay"], args].concat(), &env);
    let mut replay = relay(&[
        "start",
        "--consumer",
        "billing",
        "--queue",
        &queue,
        "--all",
        "--rate",
        RATE,
        "--reason",
        "a day is missing",
        "--json",
    ]);
    for _ in 0..KILLS {
        replay.wait_for("\"event\":\"progress\"");
        // A moment at random; nothing waits for it.
        std::thread::sleep(Duration::from_micros(fastrand::u64(..200_000)));
        replay.kill();
        support::eventually("its lease ends", async || expired(&mut conn)).await;
        replay = resumed(&relay);
    }
    assert!(replay.finish().success(), "{}", replay.output);
    let over = ["resume", "1", "--reason", "once more"];
    let mut late = relay(&over);
    assert!(!late.finish().success());
    assert!(late.output.contains("replay 1 is done"), "{}", late.output);

    let info = conn.replay(1).expect("recorded");
    assert_eq!((info.state, info.sent), (ReplayState::Done, MESSAGES as u64));
    assert_eq!((info.total, info.unsendable, info.last_seq), (info.sent, 0, info.position));
    assert_eq!(corner.depth(&everybody).await, 0, "nobody else got anything");
    corner.bind(&exchange, &queue, "").await;
    let mut arrived = Arrived::through(&exchange, &queue);
    arrived.take(&corner).await;
    arrived.complete(&ledger);
    println!("{} repeats in {KILLS} kills", arrived.repeats());
    assert!(arrived.repeats() <= KILLS * BATCH, "{} repeats", arrived.repeats());
    corner.clean().await;
}

/// Two at the same moment: one goes on, and the other says who does.
fn resumed(relay: &impl Fn(&[&str]) -> Process) -> Process {
    let args = ["resume", "1", "--reason", "the host died", "--json"];
    let mut both = [relay(&args), relay(&args)];
    // One of them ends without sending anything; which one is open.
    let loser = loop {
        if let Some(ended) = both.iter_mut().position(Process::has_ended) {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let [first, second] = both;
    let (mut loser, winner) = if loser == 0 { (first, second) } else { (second, first) };
    assert!(!loser.finish().success(), "{}", loser.output);
    assert!(loser.output.contains("works on replay 1"), "{}", loser.output);
    winner
}

#[derive(QueryableByName)]
struct Expired {
    #[diesel(sql_type = diesel::sql_types::Bool)]
    expired: bool,
}

fn expired(conn: &mut PgConnection) -> bool {
    let found: Expired =
        sql_query("SELECT lease_until < clock_timestamp() AS expired FROM outbox_replays")
            .get_result(conn)
            .expect("reads");
    found.expired
}
