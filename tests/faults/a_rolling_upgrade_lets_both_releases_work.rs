//! The schema is of this release and relays of the release before still run: they take turns on one
//! cursor, by stopping and by dying. Nothing is lost, what one holds back the other finishes, also a
//! large late transaction half read, and each key keeps its order throughout.

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::sql_types::BigInt;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use support::broker::rabbitmq;
use support::database::Database;
use support::previous::Previous;
use support::stream::{IN_FLIGHT, Stream};
use transport::{Exchange, ExchangeKind, Topology};

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

fn held(conn: &mut PgConnection) -> i64 {
    let query = sql_query("SELECT count(*) AS count FROM outbox_holds");
    query.get_result::<Count>(conn).expect("counts").count
}

async fn previous(database: &Database) -> Previous {
    let mut claimed = None;
    support::eventually("the cursor is free", async || {
        claimed = Previous::claim(&database.url, rabbitmq()).await;
        claimed.is_some()
    })
    .await;
    claimed.expect("claimed")
}

#[tokio::test(flavor = "multi_thread")]
async fn in_turns_on_one_cursor() {
    let database = Database::postgres();
    let stream = Stream::open().await;
    let mut conn = database.pg();
    let missing = stream.corner.name("missing");
    // `heads` go where nobody is yet; the others of their keys wait behind them.
    let enqueue = |conn: &mut PgConnection, numbers: std::ops::Range<i64>, heads: &[i64]| {
        for number in numbers {
            let fact = stream.fact(number);
            let fact = if heads.contains(&number) { fact.exchange(&missing) } else { fact };
            conn.transaction(|tx| outbox::enqueue_all(tx, [fact])).expect("enqueues");
        }
    };

    // The old one holds, and tries once more in vain.
    let mut old = previous(&database).await;
    enqueue(&mut conn, 1..100, &[41]);
    while old.step().await {}
    assert_eq!(held(&mut conn), 6, "41 and those behind it");
    old.retry().await;
    old.release().await;

    // The new one holds as well; what it reads of the first key goes behind the old one's.
    let mut new = stream.relay(&database.url);
    enqueue(&mut conn, 100..200, &[142]);
    Stream::drained(&mut conn).await;
    assert_eq!(held(&mut conn), 6 + 10 + 6);
    let _ = Stream::stop(&mut new);

    // The old one finishes some of both, when there is a place for them.
    let mut old = previous(&database).await;
    enqueue(&mut conn, 200..250, &[203]);
    while old.step().await {}
    let kind = ExchangeKind::Fanout;
    let exchange = Exchange { name: missing.clone(), kind };
    stream.corner.broker.declare_exchange(&exchange).await.expect("declares");
    stream.corner.bind(&missing, &stream.queue, "").await;
    let before = held(&mut conn);
    support::eventually("all three heads and more are through", async || {
        old.retry().await;
        held(&mut conn) < before - 6
    })
    .await;
    // To its knowledge the keys are still held: what it puts behind may have nothing before it.
    enqueue(&mut conn, 250..300, &[]);
    while old.step().await {}
    old.release().await;

    let mut new = stream.relay(&database.url);
    support::eventually("the new one finishes the rest", async || held(&mut conn) == 0).await;
    enqueue(&mut conn, 300..400, &[]);
    Stream::drained(&mut conn).await;
    new.kill();
    let mut old = previous(&database).await;
    enqueue(&mut conn, 400..500, &[]);
    while old.step().await {}

    // A late transaction larger than a step, of keys that nobody else writes meanwhile.
    let mut late = database.pg();
    AnsiTransactionManager::begin_transaction(&mut late).expect("begins");
    let large: Vec<i64> = (500..1_000)
        .filter(|number| number % 10 == 9)
        .chain((1_000..6_000).filter(|number| number % 10 == 9))
        .collect();
    stream.try_enqueue(&mut late, &large).expect("enqueues");
    stream.enqueue(&mut conn, [501, 502, 503]);
    while old.step().await {}
    AnsiTransactionManager::commit_transaction(&mut late).expect("commits");
    assert!(old.step().await, "the first piece");
    old.vanish();

    let mut new = stream.relay(&database.url);
    stream.enqueue(&mut conn, [511, 512, 513]);
    Stream::drained(&mut conn).await;
    support::eventually("nothing is held", async || held(&mut conn) == 0).await;
    let _ = Stream::stop(&mut new);
    let committed = (1..500).chain(large).chain([501, 502, 503, 511, 512, 513]);
    stream.arrived().await.are(committed, IN_FLIGHT);
    stream.corner.broker.delete_exchange(&missing).await.expect("deletes");
    stream.close().await;
}
