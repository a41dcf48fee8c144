//! The whole history sent again to a consumer that has applied it: every message comes under its first
//! id and ends as a counted duplicate, nothing takes effect, and nobody else gets anything. Who ordered
//! it and why is on record.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use diesel::{Connection, PgConnection};
use inbox::Ending;
use message::name;
use outbox::Draft;
use outbox::admin::AdminStore;
use serde_json::Value;
use support::broker::{Corner, rabbitmq};
use support::inbox::{Payment, Running, Store, crediting};
use support::process::{Process, binary};
use support::services::amqp_url;
use transport::{Subscriber, Subscription};

const PAYMENTS: i64 = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn to_a_replay_safe_consumer() {
    let database = <PgConnection as Store>::database();
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.fanout().await;
    let neighbour = corner.queue("neighbour").await;
    corner.bind(&exchange, &neighbour, "").await;
    let mut conn = database.pg();
    conn.transaction(|tx| {
        let drafts = (1..=PAYMENTS)
            .map(|cents| Draft::of(&Payment::new(&format!("p{cents}"), cents)).exchange(&exchange));
        outbox::enqueue_all(tx, drafts)
    })
    .expect("enqueues");
    let env = [("RELAY_DATABASE_URL", &database.url[..]), ("RELAY_AMQP_URL", &amqp_url())];
    let mut relay = Process::start("relay", &["run"], &env);
    let mut inbox = Running::start(crediting::<PgConnection>(
        PgConnection::pool(&database),
        Arc::new(corner.broker.clone()),
        &queue,
    ));
    let first = ended(&mut inbox, Ending::Applied).await;
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);
    let credits = PgConnection::credits(&mut conn, "a");

    let replay = |to: &str, more: &[&str]| -> Value {
        let args = [
            &[
                "replay",
                "start",
                "--consumer",
                "billing",
                "--queue",
                to,
                "--rate",
                "5000",
                "--json",
            ],
            more,
        ];
        let output = Command::new(binary("relay"))
            .args(args.concat())
            .envs(env)
            .env("RELAY_ACTOR", "anna@desk")
            .output()
            .expect("runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        serde_json::from_str(text.lines().last().expect("a line")).expect("JSON")
    };
    let again = ["--kind", "payment.succeeded", "--reason", "was anything lost?"];
    let done = replay(&queue, &again);
    assert_eq!((&done["state"], &done["sent"]), (&"done".into(), &PAYMENTS.into()));
    assert_eq!(ended(&mut inbox, Ending::Duplicate).await, first, "the ids of the first time");
    assert_eq!(inbox.stop().await, []);
    assert_eq!(PgConnection::credits(&mut conn, "a"), credits);
    for payment in 1..=PAYMENTS {
        let stored = PgConnection::stored(&mut conn, &format!("p{payment}")).expect("applied");
        assert_eq!((stored.duplicates, stored.conflicts), (1, 0));
    }
    assert!(PgConnection::parked(&mut conn).is_empty());
    assert_eq!(corner.depth(&neighbour).await, PAYMENTS as u64, "once each, from the first time");
    let audit = conn.audit(10).expect("reads").remove(0);
    assert_eq!(
        (&audit.action[..], &audit.actor[..], &audit.reason[..]),
        ("replay.start", "anna@desk", "was anything lost?")
    );

    // What a consumer with side effects gets to see, before and after it is forced by name.
    let watched = corner.queue("watched").await;
    let mut subscription = corner.broker.subscribe(&watched, 10).await.expect("subscribes");
    for (number, forced) in [(2, None), (3, Some("billing"))] {
        let mut more = vec!["--operation", "p7", "--reason", "one of them"];
        more.extend(forced.iter().flat_map(|name| ["--force-side-effects", *name]));
        assert_eq!(replay(&watched, &more)["sent"], 1);
        let headers = next(&mut *subscription).await;
        assert_eq!(headers.get(name::REPLAY), Some(&number.to_string()[..]));
        assert_eq!(headers.get(name::REPLAY_FORCED), forced);
        assert_eq!(headers.get(name::OPERATION), Some("p7"));
    }
    drop(subscription);
    corner.clean().await;
}

/// The ids of the next deliveries, all of which end alike.
async fn ended(inbox: &mut Running, ending: Ending) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for _ in 0..PAYMENTS {
        let told = support::bounded(inbox.next()).await;
        assert_eq!(told.ending, ending, "{told:?}");
        assert!(ids.insert(told.message_id.expect("an id")));
    }
    ids
}

async fn next(subscription: &mut dyn Subscription) -> message::Headers {
    let delivery = support::bounded(subscription.receive()).await.expect("a delivery");
    delivery.acker.ack().await.expect("acknowledged");
    delivery.headers
}
