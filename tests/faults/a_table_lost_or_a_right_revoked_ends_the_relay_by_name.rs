//! What only an operator can cure is no outage: a relay whose table goes, or whose right is taken while it
//! runs, ends with cause and remedy instead of waiting for ever; after the cure all arrives.

use diesel::connection::SimpleConnection;
use outbox::Draft;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::events::Fact;
use support::process::Process;
use support::roles::LeastPrivileged;
use transport::ExchangeKind;

#[tokio::test(flavor = "multi_thread")]
async fn while_it_runs() {
    let database = Database::postgres();
    let roles = LeastPrivileged::on(&database);
    let mut owner = database.pg();
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("facts", ExchangeKind::Fanout).await;
    let queue = corner.queue("facts").await;
    corner.bind(&exchange, &queue, "").await;
    let amqp = support::services::amqp_url();
    let env = [("RELAY_DATABASE_URL", &roles.relay[..]), ("RELAY_AMQP_URL", &amqp)];
    let relay = roles.group("relay");
    let faults = [
        (
            format!("REVOKE SELECT ON outbox_messages FROM {relay}"),
            format!("GRANT SELECT ON outbox_messages TO {relay}"),
            ["lacks a right", "outbox_messages"],
        ),
        (
            "ALTER TABLE outbox_messages RENAME TO elsewhere".to_owned(),
            "ALTER TABLE elsewhere RENAME TO outbox_messages".to_owned(),
            ["changed under the relay", "relay migrate"],
        ),
        (
            "ALTER TABLE outbox_cursors RENAME COLUMN epoch TO era".to_owned(),
            "ALTER TABLE outbox_cursors RENAME COLUMN era TO epoch".to_owned(),
            ["changed under the relay", "epoch"],
        ),
    ];
    for (number, (fault, cure, texts)) in (1..).zip(faults) {
        let mut relay = Process::start("relay", &["run"], &env);
        relay.wait_for("relaying");
        owner.batch_execute(&fault).expect(&fault);
        let status = relay.finish();
        assert_eq!(status.code(), Some(1), "{fault}: {}", relay.output);
        for text in texts {
            assert!(
                relay.output.contains(text),
                "{fault}: {text:?} is missing in:\n{}",
                relay.output
            );
        }
        owner.batch_execute(&cure).expect(&cure);
        // Whatever it left of its lease.
        owner
            .batch_execute(
                "UPDATE outbox_cursors SET owner = NULL, lease_until = NULL, epoch = epoch + 1",
            )
            .expect("freed");
        diesel::Connection::transaction(&mut owner, |tx| {
            Draft::of(&Fact::keyless(number)).exchange(&exchange).enqueue(tx)
        })
        .expect("enqueues");
        let mut again = Process::start("relay", &["run"], &env);
        support::eventually("it goes on", async || corner.depth(&queue).await as i64 == number)
            .await;
        again.terminate();
        assert!(again.finish().success(), "{}", again.output);
    }
    corner.clean().await;
}
