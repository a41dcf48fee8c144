//! Rows from before the table's checks, written by SQL: headers larger than a frame, names no frame
//! can hold, none at all, control characters. Each is dead with its reason, no connection is lost over
//! them, no relay falls, and payloads of any bytes between them arrive as they were.

use std::collections::BTreeMap;

use diesel::connection::SimpleConnection;
use diesel::sql_types::{Binary, Text};
use diesel::{RunQueryDsl, sql_query};
use support::broker::{Corner, operation, rabbitmq};
use support::flow::{Flow, LANES};
use support::proxy::Proxy;
use support::services::amqp_url;
use transport::{ExchangeKind, Subscriber};

const WITHOUT_CHECKS: &str = "DO $$
    DECLARE name text;
    BEGIN
        FOR name IN SELECT conname FROM pg_constraint
                    WHERE conrelid = 'outbox_messages'::regclass AND contype = 'c' LOOP
            EXECUTE format('ALTER TABLE outbox_messages DROP CONSTRAINT %I', name);
        END LOOP;
    END $$";

#[tokio::test(flavor = "multi_thread")]
async fn written_past_every_check() {
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("facts", ExchangeKind::Topic).await;
    let queue = corner.queue("facts").await;
    corner.bind(&exchange, &queue, "#").await;
    let (proxy, url) = Proxy::to_url(&amqp_url()).await;
    let mut flow = Flow::new();
    flow.conn.batch_execute(WITHOUT_CHECKS).expect("a table of another time");

    let payloads: [Vec<u8>; 5] = [
        vec![],
        vec![0],
        b"\xff\xfe no UTF-8 \xc3".to_vec(),
        b"{ no JSON".to_vec(),
        (0..=255).cycle().take(1_000_000).collect(),
    ];
    let mut sent = BTreeMap::new();
    let mut good = |flow: &mut Flow| {
        for payload in &payloads {
            let operation = format!("good-{}", sent.len());
            sql_query(
                "INSERT INTO outbox_messages (kind, operation, exchange, payload)
                 VALUES ('any.bytes', $1, $2, $3)",
            )
            .bind::<Text, _>(&operation)
            .bind::<Text, _>(&exchange)
            .bind::<Binary, _>(payload)
            .execute(&mut flow.conn)
            .expect("inserts");
            sent.insert(operation, payload.clone());
        }
    };
    let long = "repeat('x', 256)";
    let bad = [
        ("kind", long),
        ("kind", "''"),
        ("kind", "E'a\\nb'"),
        ("operation", long),
        ("operation", "''"),
        // Each its own: one that is dead holds back the others of its key.
        ("ordering_key", "repeat('x', 256) || n"),
        ("ordering_key", "E'\\u0001' || n"),
        ("routing_key", long),
        ("exchange", long),
        ("exchange", "''"),
        ("content_type", long),
        ("headers", "jsonb_build_object('big', repeat('x', 140000))"),
        ("headers", "jsonb_build_object(repeat('h', 256), 'v')"),
        ("headers", "'[1]'"),
    ];
    for (column, value) in bad {
        good(&mut flow);
        let mut columns = BTreeMap::from([
            ("kind", "'bad'".to_owned()),
            ("operation", "'bad'".to_owned()),
            ("exchange", format!("'{exchange}'")),
            ("payload", "'x'".to_owned()),
        ]);
        columns.insert(column, value.to_owned());
        let (names, values): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let (names, values) = (names.join(", "), values.join(", "));
        // Many of each: one could be taken for an accident.
        let insert = format!(
            "INSERT INTO outbox_messages ({names}) SELECT {values} FROM generate_series(1, 10) n"
        );
        flow.conn.batch_execute(&insert).expect("inserts");
    }
    good(&mut flow);

    let relay = flow.relay(&url);
    flow.passed().await;
    let held = flow.held();
    assert_eq!(held.len(), bad.len() * 10, "{held:#?}");
    for held in held {
        assert_eq!((&*held.state, &*held.reason), ("dead", "poison"), "{held:?}");
        assert!(held.attempts <= 1 && !held.last_error.is_empty(), "{held:?}");
    }
    relay.stop().await;
    // A lane asks once for wider frames, over headers that do not fit narrow ones.
    assert!(proxy.accepted() <= 2 * LANES, "connections were lost over them");

    assert_eq!(corner.depth(&queue).await, sent.len() as u64);
    let mut subscription = corner.broker.subscribe(&queue, 10).await.expect("consumes");
    let mut arrived = BTreeMap::new();
    for _ in 0..sent.len() {
        let delivery = subscription.receive().await.expect("a delivery");
        arrived.insert(operation(&delivery), delivery.payload.to_vec());
        delivery.acker.ack().await.expect("acknowledged");
    }
    assert!(arrived == sent, "every payload arrived byte for byte");
    drop(subscription);
    corner.clean().await;
}
