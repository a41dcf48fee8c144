//! Two writers and the relay on one SQLite file, each killed with SIGKILL again and again in the
//! middle of its commits while the others wait for the file's lock: what was committed arrives once or
//! more and in order, what was not arrives never, no row is there twice, and the file is sound.

use std::collections::BTreeMap;
use std::time::Duration;

use db::Db;
use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Text};
use diesel::{QueryableByName, RunQueryDsl, SqliteConnection, sql_query};
use outbox::reader::LogStore;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::ledger::{Arrived, Ledger};
use support::process::Process;
use support::relays::Relays;

const KILLS: usize = 45;
const KEYS: &str = "5";

#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = Text)]
    what: String,
    #[diesel(sql_type = BigInt)]
    number: i64,
}

#[derive(QueryableByName)]
struct Integrity {
    #[diesel(sql_type = Text)]
    integrity_check: String,
}

#[derive(QueryableByName)]
struct Rows {
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = BigInt)]
    ids: i64,
}

#[derive(QueryableByName)]
struct Terms {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_middle_of_their_commits() {
    let database = Database::sqlite();
    let db: Db<SqliteConnection> = database.sqlite_pool(1);
    let mut pooled = db.get::<()>().expect("opens");
    let conn = &mut *pooled;
    conn.batch_execute("CREATE TABLE written (what TEXT PRIMARY KEY, number INTEGER NOT NULL)")
        .expect("creates");
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.fanout().await;
    let relays = Relays::on(&database).with("owner", "'the-one'");

    let writer = |name: &str| {
        let mut writer =
            Process::start("doomed_writer", &[name, &database.url, &exchange, KEYS], &[]);
        writer.wait_for("");
        writer
    };
    let mut relay = relays.start("relay");
    relay.wait_for("relaying");
    let mut writers = BTreeMap::from(["one", "two"].map(|name| (name, writer(name))));
    let mut acknowledged = BTreeMap::<&str, i64>::new();
    for round in 0..KILLS {
        // A moment at random; nothing waits for it.
        std::thread::sleep(Duration::from_micros(fastrand::u64(..100_000)));
        if round % 3 == 0 {
            relay.kill();
            relay = relays.start("relay");
            relay.wait_for("relaying");
        } else {
            let name = ["one", "two"][round % 2];
            let mut killed = writers.remove(name).expect("runs");
            killed.kill();
            let _ = killed.finish();
            // A line cut off by the kill is none.
            let last = killed.output.lines().filter_map(|line| line.parse().ok()).max();
            acknowledged.insert(name, last.expect("it had committed"));
            writers.insert(name, writer(name));
        }
    }
    for writer in writers.values_mut() {
        writer.kill();
    }
    support::eventually("the outbox is drained", async || {
        conn.pending("relay").expect("counts") == 0
    })
    .await;
    relay.terminate();
    assert!(relay.finish().success(), "{}", relay.output);

    let sound: Integrity = sql_query("PRAGMA integrity_check").get_result(conn).expect("checks");
    assert_eq!(sound.integrity_check, "ok");
    let written: Vec<Written> =
        sql_query("SELECT what, number FROM written").load(conn).expect("reads");
    let written: BTreeMap<String, i64> =
        written.into_iter().map(|row| (row.what, row.number)).collect();
    for (name, last) in acknowledged {
        assert!(written[name] >= last, "{name} was told that {last} is committed: {written:?}");
    }
    let ledger: Ledger = written.into_iter().filter(|(what, _)| what.starts_with("key-")).collect();
    let rows: Rows =
        sql_query("SELECT count(*) AS number, count(DISTINCT id) AS ids FROM outbox_messages")
            .get_result(conn)
            .expect("counts");
    assert_eq!((rows.number as usize, rows.ids as usize), (ledger.len(), ledger.len()));

    let mut arrived = Arrived::through(&exchange, &queue);
    arrived.take(&corner).await;
    arrived.complete(&ledger);
    println!("{} repeats of {} messages", arrived.repeats(), arrived.messages());
    // Each kill starts another term, and so does a wait for the file that outlasts the lease.
    let terms: Terms = sql_query("SELECT epoch FROM outbox_cursors WHERE name = 'relay'")
        .get_result(conn)
        .expect("reads");
    let bound = terms.epoch as usize * Relays::IN_FLIGHT;
    assert!(arrived.repeats() <= bound, "{} repeats", arrived.repeats());
    corner.clean().await;
    relays.clean();
}
