//! Behind PgBouncer with `pool_mode = transaction` nothing is lost and the order of each key is kept:
//! the programs, the producers and the inbox share three server connections with other clients, the
//! active relay is killed, the pooler is killed. And without `transaction_pooler` that is not so.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use db::{CallError, Class, Db, Settings, classify, pooler_suspected};
use diesel::connection::SimpleConnection;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::Text;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use outbox::Draft;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::events::Fact;
use support::inbox::{BILLING, Running, Store};
use support::pgbouncer::PgBouncer;
use support::process::Process;
use transport::{ExchangeKind, Subscriber};

const ROUNDS: i64 = 3;
const PRODUCERS: i64 = 3;
const PER_PRODUCER: i64 = 250;
const PER_ROUND: i64 = PRODUCERS * PER_PRODUCER;

fn pool(url: &str, size: u32) -> Db<PgConnection> {
    let settings = Settings::default().with_pool_size(size).behind_transaction_pooler();
    Db::open(url, settings).expect("opens")
}

/// Other clients of the pooler: short transactions and single statements that move the server
/// connections about until they are dropped.
struct Crowd(Arc<AtomicBool>);

impl Crowd {
    fn gather(url: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..4 {
            let (url, over) = (url.to_owned(), over.clone());
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let Ok(mut conn) = PgConnection::establish(&url) else { continue };
                    while !over.load(Ordering::Relaxed)
                        && conn.batch_execute("SELECT 1").is_ok()
                        && conn.batch_execute("BEGIN; SELECT pg_sleep(0.001); COMMIT").is_ok()
                    {
                    }
                }
            });
        }
        Self(over)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Commits the facts of one key in order, in transactions of a few; an unknown COMMIT is repeated with
/// the same ids.
async fn produce(db: Db<PgConnection>, exchange: String, key: String, from: i64) {
    let mut number = from;
    while number < from + PER_PRODUCER {
        let count = fastrand::i64(1..=5).min(from + PER_PRODUCER - number);
        let ids: Vec<_> = (0..count).map(|_| message::MessageId::new()).collect();
        loop {
            let (ids, exchange, key) = (ids.clone(), exchange.clone(), key.clone());
            let done = db
                .call(move |conn| {
                    conn.transaction(|tx| {
                        let drafts = ids.into_iter().zip(number + 1..).map(|(id, number)| {
                            Draft::of(&Fact::of(&key, number)).id(id).exchange(&exchange)
                        });
                        outbox::enqueue_all(tx, drafts)
                    })
                })
                .await;
            match done {
                Ok(_) => break,
                Err(CallError::Work(error)) if error.to_string().contains("outbox_messages_id") => {
                    break;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        number += count;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_producer_to_the_effect() {
    let database = Database::empty_postgres();
    let mut pooler = PgBouncer::before(&database.url);
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("facts", ExchangeKind::Fanout).await;
    let (queue, billing) = (corner.queue("facts").await, corner.queue("billing").await);
    corner.bind(&exchange, &queue, "").await;
    corner.bind(&exchange, &billing, "").await;

    let config = std::env::temp_dir().join(format!("{}.toml", corner.name("relay")));
    std::fs::write(
        &config,
        "[database]\ntransaction_pooler = true\nacquire_timeout = '3s'\nlock_timeout = '3s'\n[broker]\nheartbeat = '1s'\n\
         publish_timeout = '3s'\n[relay]\nlease = '4s'\nstandby_poll = '200ms'\n",
    )
    .expect("written");
    let amqp = support::services::amqp_url();
    let env = [
        ("RELAY_DATABASE_URL", &pooler.url[..]),
        ("RELAY_AMQP_URL", &amqp),
        ("RELAY_CONFIG", config.to_str().expect("UTF-8")),
    ];
    let mut migrate = Process::start("relay", &["migrate"], &env);
    assert!(migrate.finish().success(), "{}", migrate.output);
    let mut direct = database.pg();
    direct
        .batch_execute("CREATE TABLE ledger (id bigserial PRIMARY KEY, account text NOT NULL, cents bigint NOT NULL)")
        .expect("creates the business table");
    let crowd = Crowd::gather(&pooler.url);

    let mut active = Process::start("relay", &["run"], &env);
    active.wait_for("relaying");
    let mut standby = Process::start("relay", &["run"], &env);
    let inbox = inbox::Inbox::new(
        BILLING,
        pool(&pooler.url, 8),
        Arc::new(rabbitmq()) as Arc<dyn Subscriber>,
        &billing,
    )
    .on(inbox::ReplaySafe, |tx: &mut PgConnection, fact: &Fact, _| {
        PgConnection::credit(tx, fact.key.as_deref().unwrap_or_default(), fact.number)?;
        Ok(fact.number)
    });
    let inbox = Running::start(inbox);
    let producers = pool(&pooler.url, 4);

    let effects = {
        let url = database.url.clone();
        move || {
            let mut conn = PgConnection::establish(&url).expect("connects");
            (0..PRODUCERS)
                .map(|key| PgConnection::credits(&mut conn, &format!("key-{key}")).len() as i64)
                .sum::<i64>()
        }
    };
    for round in 0..ROUNDS {
        let producing: Vec<_> = (0..PRODUCERS)
            .map(|key| {
                let key = format!("key-{key}");
                tokio::spawn(produce(
                    producers.clone(),
                    exchange.clone(),
                    key,
                    round * PER_PRODUCER,
                ))
            })
            .collect();
        support::eventually("the round flows", async || effects() > round * PER_ROUND).await;
        match round {
            0 => {
                active.kill();
                standby.wait_for("relaying");
            }
            1 => pooler.restart(),
            _ => {}
        }
        for producer in producing {
            support::bounded(producer).await.expect("produces");
        }
        support::eventually("the round is through", async || effects() >= (round + 1) * PER_ROUND)
            .await;
    }
    drop(crowd);
    standby.terminate();
    assert!(standby.finish().success(), "{}", standby.output);
    inbox.stop().await;

    let every: Vec<i64> = (1..=ROUNDS * PER_PRODUCER).collect();
    for key in 0..PRODUCERS {
        let mut credits = PgConnection::credits(&mut direct, &format!("key-{key}"));
        credits.sort_unstable();
        assert_eq!(credits, every, "each took effect once");
    }
    let total = corner.depth(&queue).await;
    let mut subscription = corner.broker.subscribe(&queue, 1_000).await.expect("consumes");
    let (mut seen, mut last) = (HashSet::new(), HashMap::<String, i64>::new());
    for _ in 0..total {
        let delivery = subscription.receive().await.expect("a delivery");
        let fact = Fact::from_payload(&delivery.payload);
        if seen.insert(delivery.message_id.clone().expect("an id")) {
            let last = last.entry(fact.key.clone().expect("a key")).or_default();
            assert_eq!(fact.number, *last + 1, "{fact:?}");
            *last = fact.number;
        }
        delivery.acker.ack().await.expect("acknowledged");
    }
    assert_eq!(seen.len() as i64, ROUNDS * PER_ROUND);
    drop(subscription);
    corner.clean().await;
    let _ = std::fs::remove_file(config);
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

fn timeout(conn: &mut PgConnection) -> Result<String, Error> {
    sql_query("SELECT current_setting('statement_timeout') AS value")
        .get_result::<Setting>(conn)
        .map(|setting| setting.value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_of_work_is_whole_and_brings_its_guards() {
    let database = Database::empty_postgres();
    database.pg().batch_execute("CREATE TABLE t (n int PRIMARY KEY)").expect("creates");
    let pooler = PgBouncer::before(&database.url);
    let db = pool(&pooler.url, 4);
    let count = || {
        let mut conn = database.pg();
        let rows: Vec<Setting> =
            sql_query("SELECT n::text AS value FROM t ORDER BY n").load(&mut conn).expect("reads");
        rows.into_iter().map(|row| row.value).collect::<Vec<_>>().join(" ")
    };
    let inserted = |conn: &mut PgConnection, n: i32| {
        sql_query(format!("INSERT INTO t VALUES ({n})")).execute(conn).map(drop)
    };

    db.call(move |conn| inserted(conn, 1)).await.expect("commits");
    // An error takes back what went before it, outside of any transaction of the work's own.
    let failed: Result<(), _> = db
        .call(move |conn| {
            inserted(conn, 2)?;
            Err(Error::NotFound)
        })
        .await;
    assert!(matches!(failed, Err(CallError::Work(Error::NotFound))), "{failed:?}");
    // A swallowed one is not called committed.
    let doomed = db
        .call(move |conn| {
            inserted(conn, 3)?;
            let _ = inserted(conn, 1);
            Ok::<_, Error>(())
        })
        .await;
    assert!(matches!(doomed, Err(CallError::Commit(_))), "{doomed:?}");
    // In a transaction of its own it may be: that is a savepoint here.
    db.call(move |conn| {
        inserted(conn, 4)?;
        let nested = conn.transaction(|tx| inserted(tx, 1));
        assert!(matches!(nested, Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))));
        inserted(conn, 5)
    })
    .await
    .expect("commits");
    let panicked = db
        .call(move |conn| -> Result<(), Error> {
            inserted(conn, 6)?;
            panic!("as told");
        })
        .await;
    assert!(matches!(panicked, Err(CallError::Panicked { .. })), "{panicked:?}");
    assert_eq!(count(), "1 4 5");

    assert_eq!(db.call(timeout).await.expect("asks"), "1min");
    for _ in 0..6 {
        let mut stranger = PgConnection::establish(&pooler.url).expect("connects");
        assert_eq!(timeout(&mut stranger).expect("asks"), "0", "no other client has our guards");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_it_does_not_and_both_are_told_apart() {
    let database = Database::postgres();
    let pooler = PgBouncer::before(&database.url);
    let untold = Db::<PgConnection>::open(&pooler.url, Settings::default()).expect("opens");
    let crowd = Crowd::gather(&pooler.url);
    let failure = (0..500).find_map(|number| {
        let mut conn = untold.get::<Error>().expect("connects");
        let fact = Fact::keyless(number);
        let done: Result<_, outbox::EnqueueError> =
            conn.transaction(|tx| Draft::of(&fact).enqueue(tx));
        done.err()
    });
    let outbox::EnqueueError::Database(error) = failure.expect("statements are missed") else {
        panic!("another error")
    };
    assert_eq!(classify(&error), Class::Pooler, "{error}");
    drop(crowd);

    assert!(pooler_suspected(&untold).expect("asks"));
    assert!(pooler_suspected(&pool(&pooler.url, 2)).expect("asks"));
    assert!(!pooler_suspected(&database.pg_pool(2)).expect("asks"));

    let with_options = format!("{}?options=-csearch_path%3Dpublic", pooler.url);
    let error = Db::<PgConnection>::open(&with_options, Settings::default()).expect_err("refused");
    assert!(error.needs_operator() && error.to_string().contains("ALTER ROLE"), "{error}");
}
