//! SIGKILL of the relay at 20 random moments while 20,000 messages flow from PostgreSQL to RabbitMQ:
//! every committed message arrives, a kill repeats at most the chunks that were in flight, and the
//! order of each key is kept once repeats are dropped.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use diesel::{Connection, PgConnection};
use outbox::Draft;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::events::Fact;
use support::process::Process;
use transport::{ExchangeKind, Subscriber};

const KILLS: usize = 20;
const MESSAGES: usize = 20_000;
const KEYS: usize = 25;
const CHUNK_ROWS: usize = 300;
const CHUNKS_IN_FLIGHT: usize = 3;

/// Commits `count` facts in transactions of random size, some of them rolled back.
fn produce(
    conn: &mut PgConnection,
    exchange: &str,
    numbers: &mut HashMap<String, i64>,
    count: usize,
) {
    let mut done = 0;
    while done < count {
        let size = fastrand::usize(1..=40).min(count - done);
        let rollback = fastrand::u8(..10) == 0;
        let mut after = numbers.clone();
        let result: Result<(), diesel::result::Error> = conn.transaction(|tx| {
            let drafts = (0..size).map(|_| {
                let key = format!("key-{}", fastrand::usize(..KEYS));
                let number = after.entry(key.clone()).or_default();
                *number += 1;
                Draft::of(&Fact::of(&key, *number)).exchange(exchange)
            });
            outbox::enqueue_all(tx, drafts)?;
            if rollback { Err(diesel::result::Error::RollbackTransaction) } else { Ok(()) }
        });
        if result.is_ok() {
            *numbers = after;
            done += size;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_messages_flowing() {
    let database = Database::postgres();
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("facts", ExchangeKind::Fanout).await;
    let queue = corner.queue("facts").await;
    corner.bind(&exchange, &queue, "").await;
    let config =
        std::path::Path::new(&std::env::temp_dir()).join(format!("{}.toml", corner.name("relay")));
    // The same owner each time, as a container with a fixed name has: it takes its own lease again
    // at once instead of waiting for its end.
    let text = format!(
        "[relay]\nowner = 'the-one'\nchunk_rows = {CHUNK_ROWS}\nchunks_in_flight = {CHUNKS_IN_FLIGHT}\n"
    );
    std::fs::write(&config, text).expect("written");
    let start = || {
        Process::start(
            "relay",
            &["run", "--config", config.to_str().expect("UTF-8")],
            &[
                ("RELAY_DATABASE_URL", &database.url),
                ("RELAY_AMQP_URL", &support::services::amqp_url()),
            ],
        )
    };

    let mut numbers = HashMap::new();
    let mut conn = database.pg();
    for _ in 0..KILLS {
        let mut relay = start();
        relay.wait_for("relaying");
        let (exchange, mut known) = (exchange.clone(), std::mem::take(&mut numbers));
        let producing = tokio::task::spawn_blocking(move || {
            produce(&mut conn, &exchange, &mut known, MESSAGES / KILLS);
            (conn, known)
        });
        // A moment at random in the time the messages take; nothing waits for it.
        std::thread::sleep(Duration::from_micros(fastrand::u64(..350_000)));
        relay.kill();
        (conn, numbers) = producing.await.expect("produces");
    }
    let mut relay = start();
    relay.wait_for("relaying");
    support::eventually("the outbox is drained", async || {
        outbox::reader::LogStore::pending(&mut conn, "relay").expect("counts") == 0
    })
    .await;
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);

    let total = usize::try_from(corner.depth(&queue).await).expect("fits");
    let mut subscription = corner.broker.subscribe(&queue, 1_000).await.expect("consumes");
    let mut seen = HashSet::new();
    let mut last: HashMap<String, i64> = HashMap::new();
    for _ in 0..total {
        let delivery = subscription.receive().await.expect("a delivery");
        let fact = Fact::from_payload(&delivery.payload);
        if seen.insert(delivery.message_id.clone().expect("an id")) {
            let key = fact.key.clone().expect("a key");
            let last = last.entry(key).or_default();
            assert_eq!(fact.number, *last + 1, "{fact:?} came after {last}");
            *last = fact.number;
        }
        delivery.acker.ack().await.expect("acknowledged");
    }
    assert_eq!(last, numbers, "every committed message arrived");
    assert_eq!(seen.len(), MESSAGES);
    let repeats = total - seen.len();
    println!("{repeats} repeats in {KILLS} kills");
    assert!(repeats <= KILLS * CHUNK_ROWS * CHUNKS_IN_FLIGHT, "{repeats} repeats");
    drop(subscription);
    corner.clean().await;
    let _ = std::fs::remove_file(config);
}
