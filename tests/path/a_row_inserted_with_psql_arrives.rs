//! The table is a contract: a row that another program inserts with plain SQL, and one that it
//! enqueues with the function, arrive on RabbitMQ with every property set.

use std::process::Command;

use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::process::Process;
use support::roles::LeastPrivileged;
use transport::{Delivery, ExchangeKind, Subscriber};

fn psql(url: &str, sql: &str) {
    let mut psql = Command::new("psql");
    psql.args([
        "--no-psqlrc",
        "--quiet",
        "--set",
        "ON_ERROR_STOP=1",
        "--dbname",
        url,
        "--command",
        sql,
    ]);
    let output = psql.output().expect("psql is installed (package postgresql-client)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_property_set() {
    let database = Database::postgres();
    // Nobody has more rights than the work takes.
    let roles = LeastPrivileged::on(&database);
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("orders", ExchangeKind::Topic).await;
    let queue = corner.queue("orders").await;
    corner.bind(&exchange, &queue, "#").await;

    psql(
        &roles.producer,
        &format!(
            "INSERT INTO outbox_messages
                 (id, kind, operation, ordering_key, exchange, routing_key, headers, content_type, payload)
             VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', 'order.placed', 'order_456', 'customer_7', '{exchange}',
                     'orders.eu', '{{\"tenant\": \"t1\", \"retries\": 3, \"counterfoil-correlation-id\": \"corr-1\"}}',
                     'application/json', convert_to('{{\"order\": \"order_456\"}}', 'UTF8'))"
        ),
    );
    psql(
        &roles.producer,
        &format!(
            "BEGIN;
             SELECT outbox_enqueue('order.paid', 'order_456', '{{\"cents\": 5000}}', ordering_key => 'customer_7',
                                   exchange => '{exchange}', serialized => true,
                                   headers => '{{\"counterfoil-schema-version\": \"2\"}}');
             COMMIT"
        ),
    );

    let mut relay = Process::start(
        "relay",
        &["run"],
        &[("RELAY_DATABASE_URL", &roles.relay), ("RELAY_AMQP_URL", &support::services::amqp_url())],
    );
    let mut subscription = corner.broker.subscribe(&queue, 10).await.expect("consumes");
    let placed = support::bounded(subscription.receive()).await.expect("arrives");
    let paid = support::bounded(subscription.receive()).await.expect("arrives");
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);

    assert_eq!(placed.message_id.as_deref(), Some("01890a5d-ac96-774b-bcce-b302099a8057"));
    assert_eq!(placed.kind.as_deref(), Some("order.placed"));
    assert_eq!((&placed.exchange, &placed.routing_key[..]), (&exchange, "orders.eu"));
    assert_eq!(placed.content_type.as_deref(), Some("application/json"));
    assert_eq!(&placed.payload[..], br#"{"order": "order_456"}"#);
    assert_eq!(
        headers(&placed, ["tenant", "retries", "counterfoil-correlation-id"]),
        ["t1", "3", "corr-1"]
    );
    assert_eq!(placed.ordering_key(), Some("customer_7"));
    let operation = placed.operation_key().expect("an operation");
    assert_eq!((operation.scope(), operation.id()), ("order.placed", "order_456"));

    assert_eq!(paid.kind.as_deref(), Some("order.paid"));
    assert_eq!(paid.routing_key, "order.paid", "no routing key stands for the kind");
    assert_eq!(paid.headers.schema_version(), Some(2));
    assert_eq!(paid.ordering_key(), Some("customer_7"));
    let id = paid.message_id.as_deref().expect("an id");
    assert!(id.parse::<message::MessageId>().is_ok(), "{id}");
    let body: serde_json::Value = serde_json::from_slice(&paid.payload).expect("JSON");
    assert_eq!(body, serde_json::json!({"cents": 5000}));
    for delivery in [placed, paid] {
        delivery.acker.ack().await.expect("acknowledged");
    }
    drop(subscription);
    corner.clean().await;
}

fn headers<const N: usize>(delivery: &Delivery, names: [&str; N]) -> [String; N] {
    names.map(|name| delivery.headers.get(name).unwrap_or("(none)").to_owned())
}
