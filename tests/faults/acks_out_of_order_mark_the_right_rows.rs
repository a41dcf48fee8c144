//! One batch goes to classic and quorum queues, to a full one and to none: acks, nacks and returns
//! come in any order and several at once. Exactly the rows that were refused are held.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use diesel::sql_types::{BigInt, Text};
use diesel::{Connection, QueryableByName, RunQueryDsl, sql_query};
use outbox::Draft;
use relay::{Backoff, Relay};
use support::broker::{Corner, rabbitmq};
use support::events::Fact;
use support::flow::{Flow, settings};
use transport::rabbitmq::RabbitMq;
use transport::{ExchangeKind, Overflow, QueueKind, Subscriber};

const ROWS: i64 = 6_000;
const ROUTES: [&str; 3] = ["classic", "quorum", "both"];

/// Few are refused, at places a batch has anywhere.
fn route(number: i64) -> &'static str {
    match number % 60 {
        7 => "nobody",
        31 => "full",
        _ => ROUTES[usize::try_from(number % 3).expect("small")],
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, QueryableByName)]
struct Refused {
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = Text)]
    reason: String,
}

async fn numbers(corner: &Corner<RabbitMq>, queue: &str) -> Vec<i64> {
    let total = corner.depth(queue).await;
    let mut subscription = corner.broker.subscribe(queue, 500).await.expect("consumes");
    let mut numbers = Vec::new();
    for _ in 0..total {
        let delivery = subscription.receive().await.expect("a delivery");
        numbers.push(Fact::from_payload(&delivery.payload).number);
        delivery.acker.ack().await.expect("acknowledged");
    }
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn on_classic_and_quorum_queues() {
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("facts", ExchangeKind::Direct).await;
    let quorum = corner.queue("quorum").await;
    let classic = corner.queue_with("classic", |queue| queue.kind = QueueKind::Classic).await;
    let full = corner
        .queue_with("full", |queue| {
            queue.kind = QueueKind::Classic;
            queue.max_length = Some(1);
            queue.overflow = Overflow::RejectPublish;
        })
        .await;
    for (queue, routes) in
        [(&quorum, &["quorum", "both"][..]), (&classic, &["classic", "both"]), (&full, &["full"])]
    {
        for route in routes {
            corner.bind(&exchange, queue, route).await;
        }
    }
    let mut flow = Flow::new();
    let drafts =
        (1..=ROWS).map(|n| Draft::of(&Fact::keyless(n)).exchange(&exchange).routing_key(route(n)));
    flow.conn.transaction(|tx| outbox::enqueue_all(tx, drafts)).expect("enqueues");
    let mut settings = settings();
    settings.chunk_rows = 4_000;
    settings.hold_backoff =
        Backoff { first: Duration::from_secs(600), longest: Duration::from_secs(600) };
    // `run_once` waits for nobody, and there is no outage here.
    settings.lease = Duration::from_secs(60);
    let relay =
        Relay::new(flow.pool(), Arc::new(rabbitmq())).settings(settings).build().expect("valid");
    support::bounded(relay.run_once()).await.expect("drains");

    let held: BTreeSet<Refused> = sql_query(
        "SELECT (convert_from(payload, 'UTF8')::jsonb ->> 'number')::bigint AS number, reason
         FROM outbox_holds JOIN outbox_messages USING (seq)",
    )
    .load(&mut flow.conn)
    .expect("reads")
    .into_iter()
    .collect();
    let lucky = numbers(&corner, &full).await;
    let refused = |number, reason: &str| Refused { number, reason: reason.to_owned() };
    let expected: BTreeSet<_> = (1..=ROWS)
        .filter_map(|n| match route(n) {
            "nobody" => Some(refused(n, "unroutable")),
            "full" if !lucky.contains(&n) => Some(refused(n, "nacked")),
            _ => None,
        })
        .collect();
    assert_eq!(held, expected);
    for (queue, route_of_it) in [(&quorum, "quorum"), (&classic, "classic")] {
        let expected: Vec<_> =
            (1..=ROWS).filter(|n| [route_of_it, "both"].contains(&route(*n))).collect();
        assert_eq!(numbers(&corner, queue).await, expected, "{route_of_it}: each exactly once");
    }
    corner.clean().await;
}
