//! SIGTERM under load: what was published is behind the cursor, the lease is given up, the exit code
//! is 0. When confirms do not come, a second SIGTERM or the deadline ends it with another exit code,
//! the cursor stays where it was, the lease is kept, and a successor sends again what was in doubt.

use diesel::PgConnection;
use outbox::reader::LogStore;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::fence;
use support::ledger::{Arrived, Ledger, Load};
use support::process::Process;
use support::proxy::{Direction, Proxy};
use support::relays::Relays;
use support::services::amqp_url;

const KEYS: usize = 10;
/// Less than a chunk, and each with a key of its own, so that all are in flight at once.
const DOUBTFUL: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn by_one_sigterm_under_load() {
    let database = Database::postgres();
    let mut conn = database.pg();
    fence::watch(&mut conn);
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.fanout().await;
    let relays = Relays::on(&database);
    let mut arrived = Arrived::through(&exchange, &queue);
    let load = Load::start(database.pg(), &exchange, KEYS);

    for round in 1..=5 {
        let mut relay = relays.start("relay");
        // Each start takes the lease at once: the one before gave it up.
        relay.wait_for("relaying");
        arrived.next(&corner, 200).await;
        relay.terminate();
        assert!(relay.finish().success(), "{}", relay.output);
        assert!(!fence::kept(&mut conn), "the lease was kept in round {round}");
    }
    let ledger = load.finish();
    let mut relay = relays.start("relay");
    drained(&mut conn).await;
    arrived.take(&corner).await;
    arrived.complete(&ledger);
    assert_eq!(arrived.repeats(), 0, "something published was not advanced past");
    assert!(fence::terms(&mut conn).iter().all(|term| term.vacant));
    fence::holds(&mut conn);
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);
    corner.clean().await;
    relays.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_second_sigterm_while_confirms_are_missing() {
    in_doubt("'60s'", |relay| {
        relay.wait_for("stopping");
        relay.terminate();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_deadline_while_confirms_are_missing() {
    in_doubt("'300ms'", |relay| relay.wait_for("stopping")).await;
}

async fn in_doubt(shutdown_timeout: &str, end: impl FnOnce(&mut Process)) {
    let database = Database::postgres();
    let mut conn = database.pg();
    fence::watch(&mut conn);
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.fanout().await;
    let (proxy, broker) = Proxy::to_url(&amqp_url()).await;
    let relays = Relays::on(&database).with("shutdown_timeout", shutdown_timeout);
    let (mut ledger, mut arrived) = (Ledger::new(), Arrived::through(&exchange, &queue));

    let mut relay = relays.clone().broker(broker).start("first");
    relay.wait_for("relaying");
    // Every lane knows the exchange.
    ledger.commit(&mut conn, &exchange, DOUBTFUL, DOUBTFUL);
    drained(&mut conn).await;
    arrived.take(&corner).await;
    proxy.hold(Direction::ToClient);
    ledger.commit(&mut conn, &exchange, DOUBTFUL, DOUBTFUL);
    arrived.next(&corner, DOUBTFUL).await;
    relay.terminate();
    end(&mut relay);
    let status = relay.finish();
    assert_eq!(status.code(), Some(1), "something is in doubt: {}", relay.output);
    assert_eq!(conn.pending("relay").expect("counts"), DOUBTFUL as i64, "marked without a confirm");
    assert!(fence::kept(&mut conn), "the lease was given up with messages on their way");

    let second = relays.start("second");
    assert_eq!(fence::successor(&mut conn, 1).await, "second");
    drained(&mut conn).await;
    arrived.take(&corner).await;
    arrived.complete(&ledger);
    assert_eq!(arrived.repeats(), DOUBTFUL);
    assert!(!fence::terms(&mut conn)[1].vacant);
    fence::holds(&mut conn);
    drop(second);
    corner.clean().await;
    relays.clean();
}

async fn drained(conn: &mut PgConnection) {
    support::eventually("the outbox is drained", async || {
        conn.pending("relay").expect("counts") == 0
    })
    .await;
}
