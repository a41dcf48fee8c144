//! The relay's connections to PostgreSQL are cut while the cursor's advance commits, so that it cannot
//! know whether it moved. It reads the cursor again: what was advanced is not sent again, what was not
//! is, and nothing else.

use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use support::database::Database;
use support::proxy::{Direction, Proxy};
use support::stream::Stream;

const ROWS: i64 = 100;

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_took_effect() {
    scenario(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_did_not() {
    scenario(false).await;
}

async fn scenario(took_effect: bool) {
    let database = Database::postgres();
    let mut gate = database.pg();
    // Inside the commit of each advance; renewals pass.
    gate.batch_execute(
        "CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON outbox_cursors
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.seq <> OLD.seq)
             EXECUTE FUNCTION wait_at_commit()",
    )
    .expect("a gate");
    let (proxy, through) = Proxy::to_url(&database.url).await;
    let stream = Stream::open().await;
    let mut conn = database.pg();
    let mut number = |query: &str| {
        let query = format!("SELECT ({query})::bigint AS number");
        sql_query(query).get_result::<Number>(&mut conn).expect("a number").number
    };
    let mut relay = stream.relay(&through);
    gate.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(42)").expect("closes the gate");
    let mut producer = database.pg();
    stream.try_enqueue(&mut producer, &(1..=ROWS).collect::<Vec<_>>()).expect("enqueues");
    support::eventually("the server is inside the advance's commit", async || {
        number(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database =
             (SELECT oid FROM pg_database WHERE datname = current_database())",
        ) > 0
    })
    .await;
    if took_effect {
        proxy.hold(Direction::ToClient);
        gate.batch_execute("COMMIT").expect("opens the gate");
        support::eventually("the cursor has moved", async || {
            number("SELECT seq FROM outbox_cursors WHERE name = 'relay'") >= ROWS
        })
        .await;
        proxy.cut();
        proxy.resume();
    } else {
        // The relay's next session waits behind this commit: it sends nothing before it is ended.
        proxy.cut();
        gate.batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks
             WHERE locktype = 'advisory' AND NOT granted AND database =
                (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .expect("ends it inside its commit");
        gate.batch_execute("COMMIT").expect("opens the gate");
    }
    Stream::drained(&mut producer).await;
    stream.enqueue(&mut producer, ROWS + 1..=2 * ROWS);
    Stream::drained(&mut producer).await;
    let _ = Stream::stop(&mut relay);
    let arrived = stream.arrived().await;
    let repeats = if took_effect { 0 } else { usize::try_from(ROWS).expect("fits") };
    arrived.are(1..=2 * ROWS, repeats);
    assert_eq!(arrived.repeats, repeats, "the stored cursor decides, and nothing else");
    stream.close().await;
}
