//! Among 2,000 good messages on PostgreSQL and RabbitMQ: one for a missing exchange, one that is
//! unroutable, one for a full queue that rejects. All good ones arrive, the three end as held with
//! reason, attempts and remedy, and they arrive once the cause is gone.

use std::sync::Arc;
use std::time::Duration;

use diesel::sql_types::{Integer, Text};
use diesel::{Connection, QueryableByName, RunQueryDsl, sql_query};
use outbox::Draft;
use relay::{Backoff, Relay, Settings};
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::events::Fact;
use transport::{ExchangeKind, Overflow, Topology};

#[derive(Debug, PartialEq, Eq, QueryableByName)]
struct Held {
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Text)]
    last_error: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn and_tells_why() {
    let database = Database::postgres();
    let corner = Corner::new(rabbitmq());
    let good = corner.exchange("good", ExchangeKind::Direct).await;
    let queue = corner.queue("good").await;
    corner.bind(&good, &queue, "ok").await;
    let full = corner
        .queue_with("full", |queue| {
            queue.max_length = Some(1);
            queue.overflow = Overflow::RejectPublish;
        })
        .await;
    corner.bind(&good, &full, "full").await;
    let missing = corner.name("missing");

    let mut conn = database.pg();
    let fact = |n| Draft::of(&Fact::keyless(n)).exchange(&good).routing_key("ok");
    let drafts = (1..=2_000).map(|n| match n {
        // The queue holds one and takes another while the limit catches up; the rest is refused.
        200..=209 => fact(n).routing_key("full"),
        700 => fact(n).exchange(&missing),
        1_300 => fact(n).routing_key("nobody"),
        n => fact(n),
    });
    conn.transaction(|tx| outbox::enqueue_all(tx, drafts)).expect("enqueues");

    let mut settings = Settings::default();
    settings.lease = Duration::from_secs(60);
    settings.hold_backoff =
        Backoff { first: Duration::from_secs(600), longest: Duration::from_secs(600) };
    let relay = Relay::new(database.pg_pool(4), Arc::new(rabbitmq()))
        .settings(settings)
        .build()
        .expect("valid");
    support::bounded(relay.run_once()).await.expect("drains");
    assert_eq!(corner.depth(&queue).await, 1_988, "all good ones arrived");

    let held: Vec<Held> =
        sql_query("SELECT reason, attempts, last_error FROM outbox_holds ORDER BY seq")
            .load(&mut conn)
            .expect("reads");
    assert!(held.iter().all(|held| held.attempts == 1), "{held:?}");
    let of = |reason: &str| held.iter().filter(|held| held.reason == reason).collect::<Vec<_>>();
    assert_eq!(of("exchange_missing").len(), 1, "{held:?}");
    assert!(of("exchange_missing")[0].last_error.contains("declare it"), "{held:?}");
    assert_eq!(of("unroutable").len(), 1, "{held:?}");
    assert!(of("unroutable")[0].last_error.contains("bind one"), "{held:?}");
    let nacked = of("nacked").len();
    assert!(nacked > 0 && nacked + 2 == held.len(), "{held:?}");
    assert_eq!(corner.depth(&full).await as usize + nacked, 10);

    // The causes go; the next attempt succeeds.
    corner.exchange_named(missing.clone(), ExchangeKind::Fanout).await;
    corner.bind(&missing, &queue, "").await;
    corner.bind(&good, &queue, "nobody").await;
    corner.bind(&good, &queue, "full").await;
    corner.broker.delete_queue(&full).await.expect("deletes");
    sql_query("UPDATE outbox_holds SET not_before = held_at")
        .execute(&mut conn)
        .expect("time passes");
    support::bounded(relay.run_once()).await.expect("drains");
    assert_eq!(corner.depth(&queue).await as usize, 1_988 + 2 + nacked);
    let left: Vec<Held> = sql_query("SELECT reason, attempts, last_error FROM outbox_holds")
        .load(&mut conn)
        .expect("reads");
    assert_eq!(left, []);
    corner.clean().await;
}
