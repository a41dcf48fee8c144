//! Four consumer processes work on one queue of 100,000 bookings, of which one in ten comes again, one in
//! twenty under another event id and one in a hundred with another amount. A hundred times one of the
//! processes is killed at any moment, five times the broker restarts, three times the database ends as in
//! a crash. Every booking takes effect once; every changed one is parked as a conflict, and nothing else.
//!
//! What is reconciled, and how exactly:
//! - The ledger against what was sent: to the cent.
//! - Each operation's row against what was sent of it: a repeat was counted if one was sent, and by kind
//!   as often as in all. How often it was delivered is the broker's secret: each kill brings messages back
//!   that had been applied and not acknowledged. There is a bound for that.
//! - What the processes told against the tables: a killed one could not tell its last endings. So what was
//!   told is never more than what is stored, and less only by what can have been in the hands of the
//!   killed, or committed by a database that did not live to say so. No operation was told applied twice.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use inbox::{ParkedState, Reason};
use support::bookings;
use support::broker::{Corner, rabbit_settings};
use support::cluster::{Cluster, Stop};
use support::consumers::{Consumers, counted};
use support::inbox::{BILLING, Store};
use support::node::Node;
use support::statement::{ACCOUNTS, Statement};
use transport::rabbitmq::RabbitMq;

const CONSUMERS: usize = 4;
const KILLS: usize = 100;
const BROKER_RESTARTS: usize = 5;
const DATABASE_RESTARTS: usize = 3;
const BATCH: &str = "64";
/// What one process can have in hand without an answer: a batch for each of two workers.
const IN_HAND: i64 = 128;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    BrokerKilled,
    BrokerRestarted,
    DatabaseCrashed,
}

#[tokio::test(flavor = "multi_thread")]
async fn over_rabbitmq_into_postgres() {
    let begun = Instant::now();
    let mut cluster = Cluster::start("");
    let url = cluster.migrated("bank");
    bookings::create(&mut cluster.pg("bank"));
    let mut node = Node::start("");
    let corner = Corner::new(RabbitMq::new(&rabbit_settings(node.url())).expect("valid"));
    let (exchange, queue) = corner.pair().await;
    let bookings = bookings();
    let mut statement = Statement::of(bookings);
    statement.publish(&corner.broker, &exchange).await;

    println!("published after {:?}", begun.elapsed());
    let mut consumers = Consumers::start(CONSUMERS, &[&url, &queue, BATCH, "any"], &node.url());
    let faults = faults();
    for (at, fault) in (1..).zip(&faults) {
        reaches(&url, bookings * at / (faults.len() as i64 + 2)).await;
        // A moment at random; nothing waits for it.
        std::thread::sleep(Duration::from_micros(fastrand::u64(..50_000)));
        match fault {
            Fault::Kill => consumers.kill_any(),
            Fault::BrokerKilled => {
                node.kill();
                node.restart();
            }
            Fault::BrokerRestarted => {
                node.ctl(&["stop_app"]);
                node.ctl(&["start_app"]);
            }
            Fault::DatabaseCrashed => cluster.restart(Stop::Immediate),
        }
    }
    println!("the last fault after {:?}", begun.elapsed());
    let conn = &mut cluster.pg("bank");
    let (repeated, changed) = (statement.repeated(), statement.changed_ids());
    let all_in = async || {
        let seen = progress(conn);
        seen.operations == bookings
            && seen.repeated >= repeated
            && seen.parked >= changed.len() as i64
    };
    support::eventually("everything has taken effect", all_in).await;
    let unanswered = ["list_queues", "--no-table-headers", "messages"];
    let empty = async || node.ctl(&unanswered).trim() == "0";
    support::eventually("everything is acknowledged", empty).await;
    let told = consumers.stop();
    println!("done after {:?}", begun.elapsed());

    ledger_is_exact(conn, &statement);
    let stored = operations_are_as_sent(conn, &statement);
    let deliveries = conflicts_are_parked_and_nothing_else(conn, &changed);
    assert_eq!(PgConnection::starts(conn), 0);

    let count = |ending: &str| counted(&told).get(ending).map_or(0, |count| *count as i64);
    println!("{:?}; {stored:?}; {deliveries} deliveries of conflicts", counted(&told));
    let strange: Vec<_> = counted(&told).into_keys().collect();
    assert_eq!(strange, ["applied", "conflict", "duplicate"]);
    let applied = told.iter().filter(|(ending, _)| ending == "applied");
    let mut once = HashSet::new();
    for (_, operation) in applied {
        assert!(once.insert(operation), "{operation} was told applied twice");
    }
    let crashes = (CONSUMERS * DATABASE_RESTARTS) as i64;
    let untold = (KILLS as i64 + crashes) * IN_HAND;
    for (ending, stored, most_told) in [
        ("applied", bookings, bookings),
        ("duplicate", stored.duplicates, stored.duplicates),
        ("conflict", stored.conflicts, deliveries),
    ] {
        let told = count(ending);
        assert!(told <= most_told, "{ending}: {told} told, {most_told} stored");
        assert!(told + untold >= stored, "{ending}: {told} told of {stored}");
    }
    let natural = stored.duplicates + stored.conflicts - repeated - changed.len() as i64;
    let lost_hands = KILLS as i64 + crashes + (CONSUMERS * BROKER_RESTARTS) as i64;
    assert!((0..=lost_hands * IN_HAND).contains(&natural), "{natural} came again by themselves");
    corner.clean().await;
}

/// 100,000; `COUNTERFOIL_BOOKINGS` for a quick look.
fn bookings() -> i64 {
    std::env::var("COUNTERFOIL_BOOKINGS").map_or(100_000, |text| text.parse().expect("a number"))
}

fn faults() -> Vec<Fault> {
    let mut faults = vec![Fault::Kill; KILLS];
    faults.extend([Fault::DatabaseCrashed; DATABASE_RESTARTS]);
    for restart in 0..BROKER_RESTARTS {
        faults.push([Fault::BrokerKilled, Fault::BrokerRestarted][restart % 2]);
    }
    fastrand::shuffle(&mut faults);
    println!("{faults:?}");
    faults
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Waits until about so many bookings took effect: numbers of those that were rolled back count too.
async fn reaches(url: &str, bookings: i64) {
    let mut conn = PgConnection::establish(url).expect("connects");
    support::eventually("enough bookings take effect", async || {
        sql_query("SELECT coalesce(max(id), 0) AS number FROM bookings")
            .get_result::<Number>(&mut conn)
            .expect("reads")
            .number
            >= bookings
    })
    .await;
}

#[derive(QueryableByName)]
struct Progress {
    #[diesel(sql_type = BigInt)]
    operations: i64,
    #[diesel(sql_type = BigInt)]
    repeated: i64,
    #[diesel(sql_type = BigInt)]
    parked: i64,
}

fn progress(conn: &mut PgConnection) -> Progress {
    sql_query(
        "SELECT count(*) AS operations, count(*) FILTER (WHERE duplicates > 0) AS repeated,
                (SELECT count(*) FROM inbox_parked) AS parked
         FROM inbox_operations",
    )
    .get_result(conn)
    .expect("reads")
}

fn ledger_is_exact(conn: &mut PgConnection, statement: &Statement) {
    let (each, sum) = statement.balance();
    let booked = bookings::booked(conn);
    let mut accounts = 0;
    for account in booked.chunk_by(|one, other| one.account == other.account) {
        let numbers: BTreeSet<_> = account.iter().map(|booked| booked.number).collect();
        assert_eq!((account.len() as i64, numbers.len() as i64), (each, each));
        assert_eq!(account.iter().map(|booked| booked.cents).sum::<i64>(), sum);
        accounts += 1;
    }
    assert_eq!(accounts, ACCOUNTS);
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    operation: String,
    #[diesel(sql_type = Nullable<Text>)]
    message_id: Option<String>,
    #[diesel(sql_type = BigInt)]
    duplicates: i64,
    #[diesel(sql_type = BigInt)]
    by_kind: i64,
    #[diesel(sql_type = BigInt)]
    conflicts: i64,
}

#[derive(Debug, Default)]
struct Stored {
    duplicates: i64,
    conflicts: i64,
}

fn operations_are_as_sent(conn: &mut PgConnection, statement: &Statement) -> Stored {
    let mut rows: Vec<Row> = sql_query(
        "SELECT operation, message_id, duplicates, conflicts,
                coalesce(redelivered, 0) + coalesce(same_message, 0) + coalesce(other_message, 0)
                    + coalesce(concurrent, 0) + coalesce(replayed, 0) AS by_kind
         FROM inbox_operations WHERE finished_at IS NOT NULL AND verdict IS NULL",
    )
    .load(conn)
    .expect("reads");
    let mut sent: Vec<_> = statement.operations().collect();
    rows.sort_by(|one, other| one.operation.cmp(&other.operation));
    sent.sort();
    assert_eq!(rows.len(), sent.len());
    let mut stored = Stored::default();
    for (row, (operation, id, again, changed)) in rows.iter().zip(sent) {
        let Row { duplicates, by_kind, conflicts, .. } = *row;
        assert_eq!(row.operation, operation);
        assert_eq!(duplicates, by_kind, "{operation}");
        assert!(!again || duplicates > 0, "{operation} was sent again and nobody counted it");
        assert_eq!(conflicts > 0, changed, "{operation}");
        // The other id may have been first, and that is the only one that may.
        assert!(again || row.message_id.as_ref() == Some(&id), "{operation}");
        stored.duplicates += duplicates;
        stored.conflicts += conflicts;
    }
    stored
}

fn conflicts_are_parked_and_nothing_else(
    conn: &mut PgConnection,
    changed: &BTreeSet<String>,
) -> i64 {
    let rows = inbox::parked(conn, BILLING, 0, u32::MAX).expect("reads");
    for row in &rows {
        let is = (row.reason, row.state, row.attempts);
        assert_eq!(is, (Reason::Conflict, ParkedState::Review, 0), "{row:?}");
    }
    assert_eq!(rows.len(), changed.len());
    let ids: BTreeSet<_> = rows.iter().filter_map(|row| row.message_id.clone()).collect();
    assert_eq!(&ids, changed);
    rows.iter().map(|row| row.deliveries).sum()
}
