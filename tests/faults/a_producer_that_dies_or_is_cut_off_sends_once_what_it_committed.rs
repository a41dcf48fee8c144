//! A producer is killed before the insert, before COMMIT and after it, or loses its connection inside
//! COMMIT: what it did not commit is neither stored nor sent, and what it did is sent once, also when
//! it tries again with the same id because it cannot know.

use diesel::connection::SimpleConnection;
use diesel::result::Error;
use diesel::sql_types::BigInt;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use message::MessageId;
use outbox::{Draft, EnqueueError};
use support::database::Database;
use support::process::Process;
use support::proxy::{Direction, Proxy};
use support::stream::Stream;

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

fn count(conn: &mut PgConnection, of: &str) -> i64 {
    sql_query(format!("SELECT count(*) AS count FROM {of}"))
        .get_result::<Count>(conn)
        .unwrap()
        .count
}

/// The business change and the event, as a retry does it.
fn attempt(conn: &mut PgConnection, draft: Draft) -> Result<(), EnqueueError> {
    conn.transaction(|tx| {
        tx.batch_execute("INSERT INTO business DEFAULT VALUES")?;
        draft.enqueue(tx).map(|_| ())
    })
}

fn database() -> (Database, PgConnection) {
    let database = Database::postgres();
    let mut conn = database.pg();
    conn.batch_execute("CREATE TABLE business (id bigint GENERATED ALWAYS AS IDENTITY)").unwrap();
    (database, conn)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_point() {
    let (database, mut conn) = database();
    let stream = Stream::open().await;
    let mut relay = stream.relay(&database.url);
    for (number, point, stored) in
        [(11, "before_insert", false), (21, "before_commit", false), (31, "after_commit", true)]
    {
        let id = MessageId::new();
        let (before, text) = (count(&mut conn, "business"), number.to_string());
        let args = [point, &database.url, &stream.exchange, &id.to_string(), &text];
        let mut producer = Process::start("doomed_producer", &args, &[]);
        producer.wait_for("waiting to be killed");
        producer.kill();
        support::eventually("its session ends", async || {
            count(
                &mut conn,
                "pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'",
            ) == 0
        })
        .await;
        assert_eq!(count(&mut conn, "business") - before, i64::from(stored), "{point}");
        assert_eq!(
            count(&mut conn, &format!("outbox_messages WHERE id = '{id}'")),
            i64::from(stored)
        );
        // Whoever restarts it cannot know, and tries again.
        match attempt(&mut conn, stream.fact(number).id(id)) {
            Ok(()) => assert!(!stored, "{point}"),
            Err(EnqueueError::AlreadyEnqueued { id: told }) => assert!(stored && told == id),
            Err(error) => panic!("{point}: {error}"),
        }
        assert_eq!(count(&mut conn, "business") - before, 1, "{point}: once");
    }
    Stream::drained(&mut conn).await;
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are([11, 21, 31], 0);
    stream.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_when_the_commit_arrived_and_its_answer_did_not() {
    cut_off(Direction::ToClient).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_when_the_commit_did_not_arrive() {
    cut_off(Direction::ToServer).await;
}

async fn cut_off(lost: Direction) {
    let (database, mut conn) = database();
    // The server waits for this lock inside COMMIT, so that its answer can be stopped in time.
    conn.batch_execute(
        "CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON business DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION wait_at_commit()",
    )
    .expect("a gate");
    let stream = Stream::open().await;
    let mut relay = stream.relay(&database.url);
    let (proxy, through) = Proxy::to_url(&database.url).await;
    let proxy = std::sync::Arc::new(proxy);
    let id = MessageId::new();
    if lost == Direction::ToClient {
        conn.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(42)").expect("closes the gate");
    }
    let (draft, holder) = (stream.fact(11).id(id), proxy.clone());
    let producing = tokio::task::spawn_blocking(move || {
        let mut conn = PgConnection::establish(&through).expect("connects");
        conn.transaction::<_, EnqueueError, _>(|tx| {
            tx.batch_execute("INSERT INTO business DEFAULT VALUES")?;
            draft.enqueue(tx)?;
            // The next thing to be sent is COMMIT.
            if lost == Direction::ToServer {
                holder.hold(lost);
            }
            Ok(())
        })
    });
    let mut watcher = database.pg();
    if lost == Direction::ToClient {
        support::eventually("the server is inside COMMIT", async || {
            count(
                &mut watcher,
                "pg_locks WHERE locktype = 'advisory' AND NOT granted AND database =
                 (SELECT oid FROM pg_database WHERE datname = current_database())",
            ) > 0
        })
        .await;
        proxy.hold(lost);
        conn.batch_execute("COMMIT").expect("opens the gate");
        support::eventually("the commit takes effect", async || {
            count(&mut watcher, "business") > 0
        })
        .await;
    } else {
        support::eventually("COMMIT is on its way", async || proxy.held() > 0).await;
    }
    proxy.cut();
    proxy.resume();
    let told = producing.await.expect("no panic").expect_err("nobody told it");
    assert!(
        matches!(
            told,
            EnqueueError::Database(
                Error::DatabaseError(..)
                    | Error::BrokenTransactionManager
                    | Error::RollbackErrorOnCommit { .. }
            )
        ),
        "{told:?}"
    );
    support::eventually("the server notices", async || {
        count(
            &mut watcher,
            "pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()",
        ) == 0
    })
    .await;
    let retried = attempt(&mut conn, stream.fact(11).id(id));
    match lost {
        Direction::ToClient => {
            assert!(matches!(retried, Err(EnqueueError::AlreadyEnqueued { .. })), "{retried:?}")
        }
        Direction::ToServer => retried.expect("nothing was stored"),
    }
    assert_eq!((count(&mut conn, "business"), count(&mut conn, "outbox_messages")), (1, 1));
    Stream::drained(&mut conn).await;
    let _ = Stream::stop(&mut relay);
    stream.arrived().await.are([11], 0);
    stream.close().await;
}
