//! SIGKILL while a batch of the purge is being deleted: whether the server carries it out or not, the next
//! relay deletes the rest and no more, and nothing is sent again.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::sql_types::BigInt;
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use outbox::reader::LogStore;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::ledger::{Arrived, Ledger};
use support::process::Process;
use support::relays::Relays;

const OLD: i64 = 205;
const YOUNG: i64 = 20;
const BATCH: i64 = 10;
const WHOLE: i64 = 2;

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn number(conn: &mut PgConnection, sql: &str) -> i64 {
    sql_query(sql).get_result::<Number>(conn).expect("reads").n
}

const LEFT: &str = "SELECT count(*) AS n FROM outbox_messages";
const BATCHES: &str = "SELECT count(*) AS n FROM batches";
const UNDER_WAY: &str = "SELECT count(*) AS n FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'first' AND wait_event = 'advisory'";

async fn drained(conn: &mut PgConnection) {
    support::eventually("the outbox is drained", async || {
        conn.pending("relay").expect("counts") == 0
    })
    .await;
}

fn stopped(mut relay: Process) {
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);
}

/// What the server does with the statement of a client that is gone.
enum Server {
    Forgets,
    CarriesOut,
}

async fn killed(server: Server) {
    let database = Database::postgres();
    let mut conn = database.pg();
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.fanout().await;
    let (mut ledger, mut arrived) = (Ledger::new(), Arrived::through(&exchange, &queue));
    let relays = Relays::on(&database);
    let sending = relays.start("sending");
    ledger.commit(&mut conn, &exchange, 50, usize::try_from(OLD).expect("fits"));
    drained(&mut conn).await;
    sql_query("UPDATE outbox_messages SET created_at = created_at - interval '2 hours'")
        .execute(&mut conn)
        .expect("ages");
    ledger.commit(&mut conn, &exchange, 50, usize::try_from(YOUNG).expect("fits"));
    drained(&mut conn).await;
    stopped(sending);
    arrived.take(&corner).await;

    // Counts each batch in its own transaction, and stands in the middle of the third one.
    conn.batch_execute(&format!(
        "CREATE TABLE batches (n bigint);
         CREATE FUNCTION batch() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO batches SELECT count(*) FROM gone HAVING count(*) > 0;
             IF (SELECT count(*) FROM batches) = {WHOLE} + 1 THEN PERFORM pg_advisory_xact_lock(4711); END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER batch AFTER DELETE ON outbox_messages
             REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION batch()"
    ))
    .expect("watches");
    let mut standing = database.pg();
    AnsiTransactionManager::begin_transaction(&mut standing).expect("begins");
    standing.batch_execute("SELECT pg_advisory_xact_lock(4711)").expect("locks");

    let relays = relays.with("retention", "'1h'").with("purge_rows", &BATCH.to_string());
    let mut first = relays.start("first");
    support::eventually("the third batch is under way", async || number(&mut conn, UNDER_WAY) == 1)
        .await;
    first.kill();
    assert_eq!(number(&mut conn, LEFT), OLD + YOUNG - WHOLE * BATCH, "batch by batch");
    match server {
        Server::Forgets => {
            let end = "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity
                       WHERE datname = current_database() AND application_name = 'first'";
            number(&mut conn, end);
        }
        Server::CarriesOut => {}
    }
    AnsiTransactionManager::rollback_transaction(&mut standing).expect("unlocks");

    let second = relays.start("second");
    support::eventually("the rest is gone", async || number(&mut conn, LEFT) == YOUNG).await;
    // And it is at work as ever.
    ledger.commit(&mut conn, &exchange, 50, 30);
    drained(&mut conn).await;
    stopped(second);
    assert_eq!(number(&mut conn, LEFT), YOUNG + 30);
    assert_eq!(number(&mut conn, "SELECT sum(n)::bigint AS n FROM batches"), OLD, "each once");
    assert_eq!(number(&mut conn, "SELECT max(n) AS n FROM batches"), BATCH);
    assert_eq!(number(&mut conn, BATCHES), (OLD + BATCH - 1) / BATCH);
    arrived.take(&corner).await;
    arrived.complete(&ledger);
    assert_eq!(arrived.repeats(), 0, "nothing is sent again");
    relays.clean();
    corner.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn and_its_batch_is_rolled_back() {
    killed(Server::Forgets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn and_its_batch_is_carried_out() {
    killed(Server::CarriesOut).await;
}
