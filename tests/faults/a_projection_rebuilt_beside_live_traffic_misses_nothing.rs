//! A projection that depends on the order of its events is built anew under generation 2 while events
//! go on coming, as `docs/replay.md` tells it: a queue for what is live, bound first; the history
//! replayed into a queue of its own; history consumed first, then what is live; the switch. Nothing is
//! missing, nothing came out of order, and the old generation was never touched.

use std::collections::BTreeMap;
use std::sync::Arc;

use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Text};
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use inbox::rebuild::{self, By};
use inbox::{Builder, Consumer, Context, Failure, Inbox, ReplaySafe};
use outbox::replay::{ReplayState, ReplayStore};
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::events::Fact;
use support::inbox::Running;
use support::ledger::Load;
use support::process::Process;
use support::services::amqp_url;
use transport::Subscriber;
use transport::rabbitmq::RabbitMq;

const SEARCH: Consumer<'static> = Consumer("search");
const BY: By<'static> = By { actor: "anna@desk", reason: "a new field" };
const KEYS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn switched_over() {
    let database = Database::postgres();
    let mut conn = database.pg();
    conn.batch_execute(
        "CREATE TABLE projection (generation bigint, key text, last bigint NOT NULL, PRIMARY KEY (generation, key))",
    )
    .expect("creates the projection");
    let corner = Corner::new(rabbitmq());
    let (exchange, live) = corner.fanout().await;
    let env = [("RELAY_DATABASE_URL", &database.url[..]), ("RELAY_AMQP_URL", &amqp_url())];
    let mut relay = Process::start("relay", &["run"], &env);
    relay.wait_for("relaying");
    let old = Running::start(projecting(&database, &corner, &live, 1));
    let load = Load::start(database.pg(), &exchange, KEYS);
    support::eventually("there is history", async || total(&mut conn, 1) > 200).await;

    let next = rebuild::begin(&mut conn, SEARCH, BY).expect("begins");
    let (anew, history) = (corner.queue("anew").await, corner.queue("history").await);
    corner.bind(&exchange, &anew, "").await;
    let own = rebuild::name(SEARCH, next);
    let mut replay = Process::start(
        "relay",
        &[
            "replay",
            "start",
            "--consumer",
            &own,
            "--queue",
            &history,
            "--all",
            "--rate",
            "2000",
            "--reason",
            BY.reason,
        ],
        &env,
    );
    let inbox = Running::start(projecting(&database, &corner, &history, next));
    assert!(replay.finish().success(), "{}", replay.output);
    let replayed = conn.replay(1).expect("recorded");
    assert_eq!((replayed.state, replayed.sent), (ReplayState::Done, replayed.total));
    // Not when no message is ready: the last ones are handed out and unanswered then, and given back by a
    // consumer that stops.
    let sent = i64::try_from(replayed.sent).expect("fits");
    support::eventually("the history is applied", async || operations(&mut conn, &own) >= sent)
        .await;
    inbox.stop().await;
    // What came meanwhile waits here, with an end of the history in front of it, as duplicates.
    assert!(corner.depth(&anew).await > 0);
    let inbox = Running::start(projecting(&database, &corner, &anew, next));
    // Two consumers and a database on a small machine cannot keep up with the load for ever.
    let mut ledger = load.finish();
    ledger.produce(&mut conn, &exchange, KEYS, 100);
    support::eventually("what is live is projected", async || total(&mut conn, 2) > sent + 20)
        .await;
    empty(&corner, &anew).await;
    rebuild::caught_up(&mut conn, SEARCH, next, BY).expect("has everything");
    rebuild::switch(&mut conn, SEARCH, next, BY).expect("switches");
    assert_eq!(rebuild::active(&mut conn, SEARCH).expect("reads"), next);

    ledger.produce(&mut conn, &exchange, KEYS, 100);
    let committed = ledger.len() as i64;
    for generation in [1, 2] {
        support::eventually("everything committed is projected", async || {
            total(&mut conn, generation) == committed
        })
        .await;
    }
    assert_eq!(projection(&mut conn, 2), projection(&mut conn, 1));
    for name in [SEARCH.0, &own] {
        assert!(inbox::parked(&mut conn, Consumer(name), 0, 10).expect("reads").is_empty());
    }
    old.stop().await;
    let kept = operations(&mut conn, &own);
    assert_eq!((kept, operations(&mut conn, SEARCH.0)), (committed, committed));
    let mut forgotten = 0;
    loop {
        match rebuild::forget(&mut conn, SEARCH, 1, 500).expect("deletes") {
            0 => break,
            batch => forgotten += batch as i64,
        }
    }
    assert_eq!((forgotten, operations(&mut conn, &own)), (committed, kept));
    inbox.stop().await;
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);
    corner.clean().await;
}

/// Takes a fact only right behind the one before it: what comes out of order is parked, and seen.
fn projecting(
    database: &Database,
    corner: &Corner<RabbitMq>,
    queue: &str,
    generation: u32,
) -> Builder<PgConnection> {
    let subscriber: Arc<dyn Subscriber> = Arc::new(corner.broker.clone());
    let project = |tx: &mut PgConnection, fact: &Fact, context: &Context<'_>| {
        let key = fact.key.as_deref().unwrap_or_default();
        let changed = sql_query(
            "INSERT INTO projection AS p VALUES ($1, $2, 1) ON CONFLICT (generation, key)
             DO UPDATE SET last = $3 WHERE p.last = $3 - 1",
        )
        .bind::<BigInt, _>(i64::from(context.generation()))
        .bind::<Text, _>(key)
        .bind::<BigInt, _>(fact.number)
        .execute(tx)?;
        if changed == 1 { Ok(()) } else { Err(Failure::reject("out of order")) }
    };
    Inbox::new(SEARCH, database.pg_pool(4), subscriber, queue)
        .on(ReplaySafe, project)
        .concurrency(1)
        .generation(generation)
}

async fn empty(corner: &Corner<RabbitMq>, queue: &str) {
    support::eventually("the queue is empty", async || corner.depth(queue).await == 0).await;
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct Last {
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = BigInt)]
    last: i64,
}

/// How many facts a generation has taken in.
fn total(conn: &mut PgConnection, generation: i64) -> i64 {
    let text = "SELECT coalesce(sum(last), 0)::bigint AS n FROM projection WHERE generation = $1";
    let found = sql_query(text).bind::<BigInt, _>(generation).get_result::<Number>(conn);
    found.expect("reads").n
}

fn projection(conn: &mut PgConnection, generation: i64) -> BTreeMap<String, i64> {
    let text = "SELECT key, last FROM projection WHERE generation = $1";
    let rows = sql_query(text).bind::<BigInt, _>(generation).load::<Last>(conn).expect("reads");
    rows.into_iter().map(|row| (row.key, row.last)).collect()
}

fn operations(conn: &mut PgConnection, consumer: &str) -> i64 {
    let text = "SELECT count(*) AS n FROM inbox_operations WHERE consumer = $1";
    sql_query(text).bind::<Text, _>(consumer).get_result::<Number>(conn).expect("counts").n
}
