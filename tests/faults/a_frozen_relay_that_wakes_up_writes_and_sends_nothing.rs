//! SIGSTOP of the holder in the middle of its work, for longer than its lease. Another takes over and
//! drains. When the frozen one goes on it advances nothing and sends nothing, stands by, and can take
//! over again later.

use outbox::reader::LogStore;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::fence;
use support::ledger::{Arrived, Ledger};
use support::proxy::{Direction, Proxy};
use support::relays::Relays;

const KEYS: usize = 10;
const BACKLOG: usize = 12_000;

#[tokio::test(flavor = "multi_thread")]
async fn and_can_take_over_again() {
    let database = Database::postgres();
    let mut conn = database.pg();
    fence::watch(&mut conn);
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.fanout().await;
    let relays = Relays::on(&database);
    let (mut ledger, mut arrived) = (Ledger::new(), Arrived::through(&exchange, &queue));
    ledger.produce(&mut conn, &exchange, KEYS, BACKLOG);

    let mut frozen = relays.start("frozen");
    frozen.wait_for("relaying");
    support::eventually("it is in the middle of its work", async || {
        corner.depth(&queue).await > 1_000
    })
    .await;
    frozen.freeze();
    assert!(conn.pending("relay").expect("counts") > 0, "it was frozen too late");
    let mut other = relays.start("other");
    assert_eq!(fence::successor(&mut conn, 1).await, "other");
    drained(&mut conn).await;
    arrived.take(&corner).await;
    arrived.complete(&ledger);
    assert!(arrived.repeats() <= Relays::IN_FLIGHT, "{} repeats", arrived.repeats());
    let repeats = arrived.repeats();

    frozen.thaw();
    frozen.wait_for("standing by");
    let sent = arrived.take(&corner).await;
    assert_eq!(sent, 0, "it sent again what its successor had advanced past");
    ledger.produce(&mut conn, &exchange, KEYS, 500);
    drained(&mut conn).await;
    arrived.take(&corner).await;
    arrived.complete(&ledger);
    assert_eq!(arrived.repeats(), repeats, "two relays sent");
    assert_eq!(fence::terms(&mut conn).len(), 2);
    fence::holds(&mut conn);

    other.kill();
    assert_eq!(fence::successor(&mut conn, 2).await, "frozen");
    frozen.wait_for("relaying");
    ledger.produce(&mut conn, &exchange, KEYS, 500);
    drained(&mut conn).await;
    arrived.take(&corner).await;
    arrived.complete(&ledger);
    assert_eq!(arrived.repeats(), repeats, "it took up where the other had stopped");
    fence::holds(&mut conn);
    frozen.terminate();
    assert!(frozen.finish().success(), "{}", frozen.output);
    corner.clean().await;
    relays.clean();
}

/// What it was about to write when it froze reaches the database after its successor has claimed.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_write_on_its_way() {
    let database = Database::postgres();
    let mut conn = database.pg();
    fence::watch(&mut conn);
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.fanout().await;
    let relays = Relays::on(&database);
    let (mut ledger, mut arrived) = (Ledger::new(), Arrived::through(&exchange, &queue));
    let (proxy, url) = Proxy::to_url(&database.url).await;
    let mut frozen = relays.clone().database(url).start("frozen");
    frozen.wait_for("relaying");
    ledger.commit(&mut conn, &exchange, BACKLOG, BACKLOG);
    support::eventually("it is in the middle of its work", async || {
        corner.depth(&queue).await > 1_000
    })
    .await;
    proxy.hold(Direction::ToServer);
    let advanced = || ledger.len() as i64 - database.pg().pending("relay").expect("counts");
    let stored = advanced();
    assert!(stored < ledger.len() as i64, "it was held too late");
    // Another chunk is at the broker: it is going to be advanced past, and cannot.
    let before = proxy.held();
    support::eventually("a chunk is confirmed", async || {
        corner.depth(&queue).await as i64 >= stored + 200 && proxy.held() > before
    })
    .await;
    frozen.freeze();
    let mut other = relays.start("other");
    assert_eq!(fence::successor(&mut conn, 1).await, "other");
    drained(&mut conn).await;
    frozen.thaw();
    proxy.resume();
    frozen.wait_for("standing by");
    ledger.commit(&mut conn, &exchange, 500, 500);
    drained(&mut conn).await;
    arrived.take(&corner).await;
    arrived.complete(&ledger);
    assert!(arrived.repeats() <= Relays::IN_FLIGHT, "{} repeats", arrived.repeats());
    assert_eq!(fence::terms(&mut conn).len(), 2);
    fence::holds(&mut conn);
    for relay in [&mut other, &mut frozen] {
        relay.terminate();
        assert!(relay.finish().success(), "{}", relay.output);
    }
    corner.clean().await;
    relays.clean();
}

async fn drained(conn: &mut diesel::PgConnection) {
    support::eventually("the outbox is drained", async || {
        conn.pending("relay").expect("counts") == 0
    })
    .await;
}
