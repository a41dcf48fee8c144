//! A reader that sleeps is told of each commit, and none falls asleep over a commit that will not be told.

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::sql_types::Text;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};
use outbox::Draft;
use outbox::admin::{AdminError, AdminStore, Order};
use outbox::reader::WakeStore;
use support::database::Database;
use support::events::Fact;
use support::roles::LeastPrivileged;

use super::{Postgres, Sqlite, Store, enqueue_facts};

fn order() -> Order {
    Order::new("anna@desk", "ticket 4711")
}

/// A migrated database with the wake-up turned on, a reader's connection and a producer's.
fn turned_on() -> (Database, PgConnection, PgConnection) {
    let database = Database::postgres();
    let (mut reader, mut producer) = (database.pg(), database.pg());
    assert!(producer.set_wakeup(true, &order()).expect("turns on"));
    reader.listen().expect("listens");
    (database, reader, producer)
}

/// What was told is with the session as soon as another answer of the server is.
fn heard(reader: &mut PgConnection) -> bool {
    reader.batch_execute("SELECT 1").expect("answers");
    reader.heard().expect("lives")
}

fn insert(producer: &mut PgConnection, number: i64) {
    outbox::enqueue_all(producer, [Draft::of(&Fact::keyless(number))]).expect("enqueues");
}

#[test]
fn a_sleeping_reader_is_told_of_commits_only() {
    let (_database, mut reader, mut producer) = turned_on();
    assert!(reader.watch().expect("asks"));
    assert!(!heard(&mut reader));
    AnsiTransactionManager::begin_transaction(&mut producer).expect("begins");
    insert(&mut producer, 1);
    assert!(!heard(&mut reader), "nothing is committed");
    AnsiTransactionManager::rollback_transaction(&mut producer).expect("rolls back");
    assert!(!heard(&mut reader), "it was rolled back");
    enqueue_facts::<Postgres>(&mut producer, &[Fact::keyless(2)]);
    assert!(heard(&mut reader));
    assert!(!heard(&mut reader), "once");
    assert!(reader.watch().expect("asks"), "it makes sure, and still has it");
    enqueue_facts::<Postgres>(&mut producer, &[Fact::keyless(3)]);
    assert!(heard(&mut reader));
}

#[test]
fn nobody_tells_a_reader_that_is_awake() {
    let (_database, mut reader, mut producer) = turned_on();
    assert!(reader.watch().expect("asks") && reader.watch().expect("makes sure"));
    reader.unwatch().expect("wakes up");
    enqueue_facts::<Postgres>(&mut producer, &[Fact::keyless(1)]);
    assert!(!heard(&mut reader));
}

#[test]
fn no_reader_falls_asleep_over_a_transaction_that_will_not_tell() {
    let (database, mut reader, mut producer) = turned_on();
    AnsiTransactionManager::begin_transaction(&mut producer).expect("begins");
    insert(&mut producer, 1);
    assert!(!reader.watch().expect("asks"), "it would not be told");
    enqueue_facts::<Postgres>(&mut database.pg(), &[Fact::keyless(2)]);
    assert!(!reader.watch().expect("asks"), "another one's end changes nothing");
    AnsiTransactionManager::commit_transaction(&mut producer).expect("commits");
    assert!(reader.watch().expect("asks"));
    // What a savepoint took back takes its share of the lock with it, and its message.
    reader.unwatch().expect("wakes up");
    AnsiTransactionManager::begin_transaction(&mut producer).expect("begins");
    AnsiTransactionManager::begin_transaction(&mut producer).expect("a savepoint");
    insert(&mut producer, 3);
    assert!(!reader.watch().expect("asks"));
    AnsiTransactionManager::rollback_transaction(&mut producer).expect("to the savepoint");
    assert!(reader.watch().expect("asks"));
}

#[test]
fn one_reader_sleeps_and_every_one_is_told() {
    let (database, mut reader, mut producer) = turned_on();
    let mut other = database.pg();
    other.listen().expect("listens");
    assert!(reader.watch().expect("asks"));
    assert!(!other.watch().expect("asks"), "it goes on polling");
    enqueue_facts::<Postgres>(&mut producer, &[Fact::keyless(1)]);
    assert!(heard(&mut reader) && heard(&mut other));
    drop(reader);
    while !other.watch().expect("asks") {
        // The server takes its time to see a session end.
        std::thread::yield_now();
    }
}

#[test]
fn it_is_off_until_it_is_turned_on_and_recorded() {
    let database = Database::postgres();
    let (mut reader, mut conn) = (database.pg(), database.pg());
    reader.listen().expect("listens");
    assert_eq!(conn.facts().expect("reads").wakeup, Some(false));
    assert!(!reader.watch().expect("asks"), "nobody would tell");
    let dry = Order { dry_run: true, ..order() };
    assert!(conn.set_wakeup(true, &dry).expect("looks"));
    assert!(!conn.set_wakeup(false, &order()).expect("is off already"));
    assert!(conn.set_wakeup(true, &order()).expect("turns on"));
    assert!(!conn.set_wakeup(true, &order()).expect("is on already"));
    assert_eq!(conn.facts().expect("reads").wakeup, Some(true));
    assert!(reader.watch().expect("asks"));
    assert!(conn.set_wakeup(false, &order()).expect("turns off"));
    assert!(!reader.watch().expect("asks"), "it must not sleep on");
    let actions: Vec<_> =
        conn.audit(10).expect("reads").into_iter().map(|entry| entry.action).collect();
    assert_eq!(actions, ["wakeup.off", "wakeup.on"]);
    enqueue_facts::<Postgres>(&mut conn, &[Fact::keyless(1)]);
}

#[test]
fn producers_are_not_kept_waiting_for_the_switch() {
    let database = Database::postgres();
    let (mut conn, mut producer) = (database.pg(), database.pg());
    AnsiTransactionManager::begin_transaction(&mut producer).expect("begins");
    insert(&mut producer, 1);
    let refused = conn.set_wakeup(true, &order()).expect_err("a transaction has written");
    assert!(matches!(refused, AdminError::TableBusy(_)), "{refused}");
    AnsiTransactionManager::commit_transaction(&mut producer).expect("commits");
    assert!(conn.set_wakeup(true, &order()).expect("turns on"));
}

#[test]
fn the_least_rights_suffice_and_the_switch_is_the_owner_s() {
    let (database, _, _) = turned_on();
    let parties = LeastPrivileged::on(&database);
    let connect = |address: &str| PgConnection::establish(address).expect("logs in");
    let (mut reader, mut producer) = (connect(&parties.relay), connect(&parties.producer));
    reader.listen().expect("listens");
    assert!(reader.watch().expect("asks"));
    enqueue_facts::<Postgres>(&mut producer, &[Fact::keyless(1)]);
    assert!(heard(&mut reader));
    let refused = connect(&parties.admin).set_wakeup(false, &order()).expect_err("not the owner");
    assert!(matches!(refused, AdminError::NotOwner(_)), "{refused}");
}

#[derive(QueryableByName)]
struct Shown {
    #[diesel(sql_type = Text)]
    text: String,
}

#[test]
fn the_way_back_takes_it_along() {
    let (_database, _, mut owner) = turned_on();
    migrations::revert_all(&mut owner).expect("reverts");
    let left: Shown =
        sql_query("SELECT count(*)::text AS text FROM pg_proc WHERE proname = 'outbox_wake'")
            .get_result(&mut owner)
            .expect("counts");
    assert_eq!(left.text, "0");
}

#[test]
fn the_server_gives_up_a_session_that_asks_nothing() {
    let (_database, mut reader, _producer) = turned_on();
    let shown: Shown =
        sql_query("SELECT coalesce(current_setting('idle_session_timeout', true), '1min') AS text")
            .get_result(&mut reader)
            .expect("shows");
    assert_eq!(shown.text, "1min");
}

#[test]
fn sqlite_tells_nobody() {
    let database = Database::sqlite();
    let mut conn = Sqlite::connect(&database);
    const { assert!(!SqliteConnection::TELLS && PgConnection::TELLS) };
    assert_eq!(conn.facts().expect("reads").wakeup, None);
    let refused = conn.set_wakeup(true, &order()).expect_err("it cannot").to_string();
    assert!(refused.contains("SQLite") && refused.contains("poll"), "{refused}");
}
