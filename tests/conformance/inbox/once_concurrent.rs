//! Two transactions at the same time.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use db::{Class, classify};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Text};
use inbox::{Once, OnceError, Outcome};
use message::Fingerprint;
use support::database::Database;
use support::inbox::{BILLING, Payment, Store};

use super::on_both;

on_both!(
    a_duplicate_waits_and_gets_the_first_one_s_result,
    after_a_rollback_the_one_that_waited_applies
);

fn apply<C: Store>(tx: &mut C, receipt: &str) -> Result<Outcome<String>, Error> {
    let (key, fingerprint) = (Payment::key("p1"), Fingerprint::of_bytes(b"50"));
    inbox::once(tx, BILLING, &key, &fingerprint, |tx| {
        C::credit(tx, "a", 50)?;
        Ok(receipt.to_owned())
    })
}

/// Runs a second transaction while a first one has claimed the operation, and ends the first only
/// when the second is known to wait for it.
fn second_while_first<C: Store>(database: &Database, commit: bool) -> Outcome<String> {
    let mut first = C::connection(database);
    let mut second = C::connection(database);
    let (about_to, begun) = mpsc::channel();
    let mut waiting = None;
    let ended: Result<(), Error> = first.write(|tx| {
        assert_eq!(apply(tx, "first")?, Outcome::Applied("first".into()));
        waiting = Some(thread::spawn(move || {
            about_to.send(()).expect("somebody listens");
            second.write(|tx| apply(tx, "second")).expect("no error")
        }));
        begun.recv().expect("it begins");
        database.until_one_waits();
        if commit { Ok(()) } else { Err(Error::RollbackTransaction) }
    });
    assert_eq!(ended.is_ok(), commit);
    waiting.expect("was started").join().expect("no panic")
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

async fn a_duplicate_waits_and_gets_the_first_one_s_result<C: Store>() {
    let database = C::database();
    assert_eq!(second_while_first::<C>(&database, true), Outcome::Duplicate("first".into()));
    assert_eq!(C::credits(&mut C::connection(&database), "a"), [50]);
}

async fn after_a_rollback_the_one_that_waited_applies<C: Store>() {
    let database = C::database();
    assert_eq!(second_while_first::<C>(&database, false), Outcome::Applied("second".into()));
    assert_eq!(C::credits(&mut C::connection(&database), "a"), [50]);
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    lock_timeout: String,
}

#[test]
fn in_progress_leaves_transaction_and_lock_timeout_as_they_were() {
    let database = PgConnection::database();
    let (mut first, mut second) =
        (PgConnection::connection(&database), PgConnection::connection(&database));
    let (key, fingerprint) = (Payment::key("p1"), Fingerprint::of_bytes(b"50"));
    let shown = |tx: &mut PgConnection| {
        diesel::sql_query("SHOW lock_timeout")
            .get_result::<Setting>(tx)
            .expect("answers")
            .lock_timeout
    };
    let once = || Once::new(BILLING, &key, &fingerprint).wait_at_most(Duration::ZERO);
    first
        .transaction(|tx| {
            assert_eq!(apply(tx, "first")?, Outcome::Applied("first".into()));
            second.transaction(|tx| {
                tx.batch_execute("SET LOCAL lock_timeout = '7s'")?;
                let outcome: Outcome<String> = once().run(tx, |_| Err(Error::NotFound))?;
                assert_eq!(outcome, Outcome::InProgress);
                assert_eq!(shown(tx), "7s");
                // What else the transaction does is kept.
                PgConnection::credit(tx, "b", 1)
            })
        })
        .expect("both commit");
    assert_eq!(PgConnection::credits(&mut second, "b"), [1]);
    second
        .transaction(|tx| {
            tx.batch_execute("SET LOCAL lock_timeout = '7s'")?;
            let outcome: Outcome<String> = once().run(tx, |_| Err(Error::NotFound))?;
            assert_eq!(outcome, Outcome::Duplicate("first".into()));
            assert_eq!(shown(tx), "7s");
            Ok::<_, Error>(())
        })
        .expect("commits");
}

#[test]
fn above_read_committed_a_concurrent_duplicate_is_contention() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let database = PgConnection::database();
        let (mut first, mut second) =
            (PgConnection::connection(&database), PgConnection::connection(&database));
        let failed = second
            .build_transaction()
            .serializable()
            .run(|tx| {
                tx.batch_execute(&format!(
                    "SET TRANSACTION ISOLATION LEVEL {level}; SELECT count(*) FROM ledger"
                ))?;
                first.transaction(|tx| apply(tx, "first")).map(drop)?;
                apply(tx, "second").map(drop)
            })
            .expect_err("cannot see the first one's row");
        assert_eq!(classify(&failed), Class::Contention, "{level}: {failed}");
        // Run again, whole, it is a duplicate.
        let again = second.transaction(|tx| apply(tx, "second")).expect("no error");
        assert_eq!(again, Outcome::Duplicate("first".into()));
    }
}

#[test]
fn statements_are_prepared_once_and_a_pooled_connection_will_do() {
    let database = PgConnection::database();
    let manager = diesel::r2d2::ConnectionManager::<PgConnection>::new(&database.url);
    let pool = diesel::r2d2::Pool::builder().max_size(1).build(manager).expect("opens");
    let mut conn = pool.get().expect("a connection");
    for payment in ["p1", "p2", "p3", "p1", "p2", "p3"] {
        let (key, fingerprint) = (Payment::key(payment), Fingerprint::of_bytes(b""));
        conn.transaction(|tx| {
            inbox::once(tx, BILLING, &key, &fingerprint, |_| Ok::<_, OnceError>(1)).map(drop)
        })
        .expect("no error");
    }
    let query = "SELECT count(*) AS n FROM pg_prepared_statements WHERE statement LIKE '%inbox_operations%'";
    let prepared: Number = diesel::sql_query(query).get_result(&mut conn).expect("answers");
    // Claim, result, repeat; this query itself is not among them.
    assert_eq!(prepared.n, 3);
}
