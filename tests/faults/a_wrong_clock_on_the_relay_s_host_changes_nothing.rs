//! The clocks of the relays' hosts are an hour ahead and an hour behind, and one of them steps back
//! and forward while it works: lease, delays and waits between attempts follow the database's clock.

use std::path::Path;
use std::process::Command;

use diesel::sql_types::Bool;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use support::database::Database;
use support::process::{Process, binary};
use support::services::amqp_url;
use support::stream::Stream;
use transport::{ExchangeKind, Topology};

const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
];

#[derive(QueryableByName)]
struct Truth {
    #[diesel(sql_type = Bool)]
    value: bool,
}

fn holds(conn: &mut PgConnection, expression: &str) -> bool {
    let query = format!("SELECT ({expression}) AS value");
    sql_query(query).get_result::<Truth>(conn).expect("a truth value").value
}

/// A relay whose wall clock is as `file` says, looked at anew each time; its monotonic clock is right,
/// as it is on a host with a wrong time.
fn relay(stream: &Stream, url: &str, file: &Path) -> Process {
    let library = LIBRARIES.iter().find(|path| Path::new(path).exists());
    let library = library.expect("libfaketime is not installed (Debian, Ubuntu: faketime)");
    let mut command = Command::new(binary("relay"));
    command.args(["run", "--config", stream.config()]).env("LD_PRELOAD", library);
    command.env("FAKETIME_TIMESTAMP_FILE", file).env("FAKETIME_NO_CACHE", "1");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    command.env("RELAY_DATABASE_URL", url).env("RELAY_AMQP_URL", amqp_url());
    Process::spawn(command)
}

/// A delayed message is not ordered against others of its key: there must be none.
fn of_other_keys(numbers: std::ops::RangeInclusive<i64>) -> impl Iterator<Item = i64> {
    numbers.filter(|number| number % 10 > 4)
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_steps_back_and_forward() {
    let database = Database::postgres();
    let stream = Stream::open().await;
    let (ahead, behind) =
        (format!("{}.ahead", stream.config()), format!("{}.behind", stream.config()));
    let (ahead, behind) = (Path::new(&ahead), Path::new(&behind));
    std::fs::write(ahead, "+1h").expect("written");
    std::fs::write(behind, "-1h").expect("written");
    let mut conn = database.pg();
    let mut first = relay(&stream, &database.url, ahead);
    first.wait_for("relaying");
    let mut second = relay(&stream, &database.url, behind);

    // Due in half an hour: past on the first one's clock. Due in a second: far off on the second's.
    let late = stream.fact(2).deliver_after(std::time::Duration::from_secs(1_800));
    let soon = stream.fact(1).deliver_after(std::time::Duration::from_secs(1));
    conn.transaction(|tx| outbox::enqueue_all(tx, [late, soon])).expect("enqueues");
    stream.enqueue(&mut conn, of_other_keys(10..=80));
    stream.reaches(36).await;
    std::fs::write(ahead, "-2h").expect("written");
    // Two terms of the lease of 5 s by the database's clock: it is renewed, and not taken over.
    let turned = "SELECT clock_timestamp()::text";
    let began = sql_query(format!("CREATE TABLE began AS {turned} AS at")).execute(&mut conn);
    began.expect("noted");
    let missing = stream.corner.name("missing");
    let refused = stream.fact(3).exchange(&missing);
    conn.transaction(|tx| outbox::enqueue_all(tx, [refused])).expect("enqueues");
    support::eventually("it is refused, and its next attempt is near", async || {
        holds(
            &mut conn,
            "EXISTS (SELECT FROM outbox_holds WHERE reason = 'exchange_missing' AND attempts > 1
             AND not_before BETWEEN clock_timestamp() - interval '1 min' AND clock_timestamp() + interval '5 min')",
        )
    })
    .await;
    support::eventually("two terms have passed", async || {
        holds(
            &mut conn,
            "(SELECT at::timestamptz FROM began) < clock_timestamp() - interval '10 s'",
        )
    })
    .await;
    // And forward, by more than any lease, while messages flow.
    std::fs::write(ahead, "+3h").expect("written");
    stream.enqueue(&mut conn, of_other_keys(81..=100));
    stream.reaches(46).await;
    let kept = "(SELECT epoch = 1 AND lease_until BETWEEN clock_timestamp() AND clock_timestamp() + interval '6 s'
                 FROM outbox_cursors WHERE name = 'relay')";
    assert!(holds(&mut conn, kept), "the lease changed hands");
    stream
        .corner
        .broker
        .declare_exchange(&transport::Exchange {
            name: missing.clone(),
            kind: ExchangeKind::Fanout,
        })
        .await
        .expect("declares");
    stream.corner.bind(&missing, &stream.queue, "").await;
    stream.reaches(47).await;
    // What has arrived and is not settled yet would be sent again after the kill, as it must be.
    Stream::drained(&mut conn).await;
    support::eventually("all but the delayed one is settled", async || {
        holds(&mut conn, "NOT EXISTS (SELECT FROM outbox_holds WHERE reason <> 'delayed')")
    })
    .await;

    // The second one takes over by the database's clock, and keeps to it as well.
    first.kill();
    second.wait_for("relaying");
    let soon = stream.fact(4).deliver_after(std::time::Duration::from_secs(1));
    conn.transaction(|tx| outbox::enqueue_all(tx, [soon])).expect("enqueues");
    stream.enqueue(&mut conn, of_other_keys(101..=200));
    stream.reaches(98).await;
    support::eventually("the one due in a second is through, the other is not", async || {
        holds(&mut conn, "(SELECT count(*) = 1 FROM outbox_holds WHERE reason = 'delayed')")
    })
    .await;
    let _ = Stream::stop(&mut second);
    stream.arrived().await.are([1, 3, 4].into_iter().chain(of_other_keys(10..=200)), 0);
    stream.corner.broker.delete_exchange(&missing).await.expect("deletes");
    for file in [ahead, behind] {
        let _ = std::fs::remove_file(file);
    }
    stream.close().await;
}
