//! Among 10,000 good messages on PostgreSQL and RabbitMQ: one too large for the broker, one for a
//! missing exchange, a full queue that rejects, and an unroutable ordering key. All good ones arrive in
//! order, the four kinds end where they should with reason, attempts and remedy, and all but the
//! poison arrive once the cause is gone.

use std::sync::Arc;
use std::time::Duration;

use diesel::{Connection, RunQueryDsl, sql_query};
use outbox::Draft;
use relay::{Backoff, Relay};
use support::broker::{Corner, rabbit_settings};
use support::events::Fact;
use support::flow::{Arrived, Flow, settings};
use support::node::Node;
use transport::rabbitmq::RabbitMq;
use transport::{ExchangeKind, Overflow, QueueKind, Topology};

const GOOD: usize = 10_000;
const KEYS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn and_tells_why() {
    let node = Node::start("max_message_size = 65536");
    let client = || RabbitMq::new(&rabbit_settings(node.url())).expect("valid");
    let corner = Corner::new(client());
    let exchange = corner.exchange("facts", ExchangeKind::Direct).await;
    let queue = corner.queue("good").await;
    corner.bind(&exchange, &queue, "ok").await;
    let full = corner
        .queue_with("full", |queue| {
            queue.kind = QueueKind::Classic;
            queue.max_length = Some(1);
            queue.overflow = Overflow::RejectPublish;
        })
        .await;
    corner.bind(&exchange, &full, "full").await;
    let missing = corner.name("missing");

    // Between five equal parts of good ones.
    let mut flow = Flow::new();
    let good = |flow: &mut Flow| {
        flow.commit("good", KEYS, GOOD / 5, |draft| draft.exchange(&exchange).routing_key("ok"));
    };
    good(&mut flow);
    let mut poison = Fact::of("poison-0", 1);
    poison.filler = "x".repeat(100_000);
    let draft = Draft::of(&poison).exchange(&exchange).routing_key("ok");
    flow.conn.transaction(|tx| draft.enqueue(tx)).expect("enqueues");
    good(&mut flow);
    flow.commit("missing", 1, 1, |draft| draft.exchange(&missing));
    good(&mut flow);
    flow.commit("full", 1, 10, |draft| draft.exchange(&exchange).routing_key("full"));
    good(&mut flow);
    flow.commit("lost", 1, 10, |draft| draft.exchange(&exchange).routing_key("nobody"));
    good(&mut flow);

    let mut settings = settings();
    settings.chunk_rows = 4_000;
    settings.lease = Duration::from_secs(60);
    settings.hold_backoff =
        Backoff { first: Duration::from_secs(600), longest: Duration::from_secs(600) };
    let relay =
        Relay::new(flow.pool(), Arc::new(client())).settings(settings).build().expect("valid");
    support::bounded(relay.run_once()).await.expect("drains");
    let mut arrived = Arrived::new();
    arrived.drain(&corner.broker, &queue).await;
    assert_eq!(arrived.last, flow.committed("good"), "all good ones arrived, in order");
    println!("{} repeats", arrived.repeats);
    // The two that close their channel send a window again each time they are looked for.
    assert!(arrived.repeats <= 4_000, "{} repeats", arrived.repeats);

    let held = flow.held();
    let of = |key: &str| -> Vec<(&str, &str, i32, &str)> {
        let mine = held.iter().filter(|held| held.ordering_key.as_deref() == Some(key));
        mine.map(|held| (&*held.state, &*held.reason, held.attempts, &*held.last_error)).collect()
    };
    let [(state, reason, attempts, error)] = of("poison-0")[..] else { panic!("{held:?}") };
    assert_eq!((state, reason, attempts), ("dead", "poison", 1));
    assert!(error.contains("too large for the broker"), "{error}");
    let [(state, reason, attempts, error)] = of("missing-0")[..] else { panic!("{held:?}") };
    assert_eq!((state, reason, attempts), ("waiting", "exchange_missing", 1));
    assert!(error.contains("declare it"), "{error}");
    // The first found room; the second did not, and the others of its key wait behind it.
    for (key, waiting, head, remedy) in
        [("full-0", 9, "nacked", "reject-publish"), ("lost-0", 10, "unroutable", "bind one")]
    {
        let mine = of(key);
        assert_eq!(mine.len(), waiting, "{key}: {mine:?}");
        assert_eq!((mine[0].0, mine[0].1, mine[0].2), ("waiting", head, 1), "{key}");
        assert!(mine[0].3.contains(remedy), "{key}: {mine:?}");
        for behind in &mine[1..] {
            assert_eq!(*behind, ("waiting", "behind", 0, ""), "{key}");
        }
    }
    assert_eq!(held.len(), 1 + 1 + 9 + 10);

    // The causes go; the next attempts succeed.
    corner.exchange_named(missing.clone(), ExchangeKind::Fanout).await;
    let repaired = corner.queue("repaired").await;
    corner.bind(&missing, &repaired, "").await;
    corner.bind(&exchange, &repaired, "nobody").await;
    let mut other = Arrived::new();
    other.first(&corner.broker, &full, 1).await;
    corner.broker.delete_queue(&full).await.expect("deletes");
    corner.bind(&exchange, &repaired, "full").await;
    while flow.held().len() > 1 {
        sql_query("UPDATE outbox_holds SET not_before = held_at WHERE state = 'waiting'")
            .execute(&mut flow.conn)
            .expect("time passes");
        support::bounded(relay.run_once()).await.expect("drains");
    }
    other.drain(&corner.broker, &repaired).await;
    for name in ["missing", "full", "lost"] {
        for (key, last) in flow.committed(name) {
            assert_eq!(other.last.get(&key), Some(&last), "{key} arrived in order");
        }
    }
    assert_eq!(other.repeats, 0);
    assert_eq!(flow.held()[0].reason, "poison", "only an operator helps here");
}
