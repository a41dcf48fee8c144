//! Two relays on one cursor: one works, the other stands by. Without a fault nothing is sent twice;
//! after a SIGKILL the standby takes over when the lease has ended, after a SIGTERM without waiting
//! for its end.

use outbox::reader::LogStore;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::fence;
use support::ledger::{Arrived, Load};
use support::relays::Relays;

const KEYS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_after_sigkill_and_after_sigterm() {
    let database = Database::postgres();
    let mut conn = database.pg();
    fence::watch(&mut conn);
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.fanout().await;
    let relays = Relays::on(&database);
    let mut arrived = Arrived::through(&exchange, &queue);

    // Both start at once.
    let mut running = [("a", relays.start("a")), ("b", relays.start("b"))];
    let first = fence::successor(&mut conn, 0).await;
    running.sort_by_key(|(name, _)| *name != first);
    let [(_, mut active), (second, mut standby)] = running;
    active.wait_for("relaying");
    standby.wait_for("standing by");

    let load = Load::start(database.pg(), &exchange, KEYS);
    support::eventually("a good deal has flowed", async || corner.depth(&queue).await > 2_000)
        .await;
    let stages = arrived.take(&corner).await;
    assert!(stages > 2_000);
    assert_eq!(arrived.repeats(), 0, "nothing is sent twice without a fault");
    assert_eq!(fence::terms(&mut conn).len(), 1, "the lease does not change hands without a fault");

    active.kill();
    assert_eq!(fence::successor(&mut conn, 1).await, second);
    standby.wait_for("relaying");
    let mut third = relays.start("c");
    third.wait_for("standing by");
    // A clean end under load: nothing is in doubt, so nothing is repeated from here on.
    standby.terminate();
    assert!(standby.finish().success(), "{}", standby.output);
    assert_eq!(fence::successor(&mut conn, 2).await, "c");
    third.wait_for("relaying");

    let ledger = load.finish();
    support::eventually("the outbox is drained", async || {
        conn.pending("relay").expect("counts") == 0
    })
    .await;
    arrived.take(&corner).await;
    arrived.complete(&ledger);
    assert!(arrived.repeats() <= Relays::IN_FLIGHT, "{} repeats by one kill", arrived.repeats());

    let terms = fence::terms(&mut conn);
    let vacant: Vec<bool> = terms.iter().map(|term| term.vacant).collect();
    assert_eq!(vacant, [true, false, true], "only a dead holder is waited for: {terms:?}");
    fence::holds(&mut conn);
    corner.clean().await;
    relays.clean();
}
