//! SIGKILL of the relay at 20 random moments while 20,000 messages flow from PostgreSQL to RabbitMQ:
//! every committed message arrives, a kill repeats at most the chunks that were in flight, and the
//! order of each key is kept once repeats are dropped.

use std::time::Duration;

use outbox::reader::LogStore;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::ledger::{Arrived, Ledger};
use support::relays::Relays;
use support::roles::LeastPrivileged;

const KILLS: usize = 20;
const MESSAGES: usize = 20_000;
const KEYS: usize = 25;

#[tokio::test(flavor = "multi_thread")]
async fn with_messages_flowing() {
    let database = Database::postgres();
    let roles = LeastPrivileged::on(&database);
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.fanout().await;
    // The same owner each time, as a container with a fixed name has: it takes its own lease again
    // at once instead of waiting for its end.
    let relays = Relays::on(&database).database(&roles.relay).with("owner", "'the-one'");

    let mut ledger = Ledger::new();
    let mut conn = database.pg();
    for _ in 0..KILLS {
        let mut relay = relays.start("relay");
        relay.wait_for("relaying");
        let exchange = exchange.clone();
        let producing = tokio::task::spawn_blocking(move || {
            ledger.produce(&mut conn, &exchange, KEYS, MESSAGES / KILLS);
            (conn, ledger)
        });
        // A moment at random in the time the messages take; nothing waits for it.
        std::thread::sleep(Duration::from_micros(fastrand::u64(..350_000)));
        relay.kill();
        (conn, ledger) = producing.await.expect("produces");
    }
    let mut relay = relays.start("relay");
    relay.wait_for("relaying");
    support::eventually("the outbox is drained", async || {
        conn.pending("relay").expect("counts") == 0
    })
    .await;
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);

    let mut arrived = Arrived::through(&exchange, &queue);
    arrived.take(&corner).await;
    arrived.complete(&ledger);
    assert_eq!(arrived.messages(), MESSAGES);
    println!("{} repeats in {KILLS} kills", arrived.repeats());
    assert!(arrived.repeats() <= KILLS * Relays::IN_FLIGHT, "{} repeats", arrived.repeats());
    corner.clean().await;
    relays.clean();
}
