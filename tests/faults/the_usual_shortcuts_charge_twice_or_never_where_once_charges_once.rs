//! The control of this suite: what consumers do instead of `inbox::once` fails under the faults that it is tested
//! with. Each shortcut and `once` get the same deliveries on databases of their own.

use std::collections::HashSet;
use std::sync::Barrier;

use db::Backend;
use diesel::connection::SimpleConnection;
use diesel::result::Error;
use diesel::sql_types::Text;
use diesel::{PgConnection, QueryResult, RunQueryDsl, sql_query};
use inbox::{Once, Outcome};
use message::Fingerprint;
use support::database::Database;
use support::inbox::{BILLING, Payment, Store};

/// What the shortcuts keep their marks in.
fn shop() -> (Database, PgConnection) {
    let database = PgConnection::database();
    let mut conn = PgConnection::connection(&database);
    conn.batch_execute("CREATE TABLE marks (mark text PRIMARY KEY)").expect("a table");
    (database, conn)
}

fn payment() -> Payment {
    Payment::new("p1", 5)
}

fn charge(conn: &mut PgConnection) -> QueryResult<()> {
    PgConnection::credit(conn, "a", payment().cents)
}

/// Whether the mark is new.
fn mark(conn: &mut PgConnection, mark: &str) -> QueryResult<bool> {
    let insert = sql_query("INSERT INTO marks VALUES ($1) ON CONFLICT DO NOTHING");
    Ok(insert.bind::<Text, _>(mark).execute(conn)? == 1)
}

fn is_marked(conn: &mut PgConnection, mark: &str) -> QueryResult<bool> {
    let select = sql_query("SELECT FROM marks WHERE mark = $1");
    Ok(select.bind::<Text, _>(mark).execute(conn)? == 1)
}

/// Where a process dies: nothing of it runs any more, and its open transaction is no more.
#[derive(Clone, Copy, PartialEq)]
enum Dies {
    Never,
    BeforeCommit,
}

/// One delivery as an inbox handles it.
fn once(conn: &mut PgConnection, message_id: &str, dies: Dies) -> Result<(), Error> {
    let (key, fingerprint) =
        (Payment::key("p1"), Fingerprint::of_payload(&payment().message().payload, &[]));
    conn.write(|tx| {
        let once = Once::new(BILLING, &key, &fingerprint).message_id(message_id);
        let _: Outcome<()> = once.run(tx, charge)?;
        if dies == Dies::BeforeCommit { Err(Error::RollbackTransaction) } else { Ok(()) }
    })
}

/// What `once` leaves of these deliveries.
fn charges_of_once(deliveries: &[(&str, Dies)]) -> Vec<i64> {
    let (_database, mut conn) = shop();
    for (message_id, dies) in deliveries {
        let done = once(&mut conn, message_id, *dies);
        assert_eq!(done.is_ok(), *dies == Dies::Never, "{done:?}");
    }
    PgConnection::credits(&mut conn, "a")
}

#[test]
fn to_look_first_and_then_to_act_charges_twice_when_two_look_at_once() {
    let (database, mut conn) = shop();
    let both = Barrier::new(2);
    let on_two = |deliver: &(dyn Fn(&mut PgConnection) + Sync)| {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| deliver(&mut PgConnection::connection(&database)));
            }
        });
    };
    on_two(&|conn| {
        let look_and_act = conn.write(|tx| {
            let known = is_marked(tx, "p1")?;
            both.wait();
            if !known {
                charge(tx)?;
                // Nobody minds a mark that is there already: it says the same.
                mark(tx, "p1")?;
            }
            Ok::<_, Error>(())
        });
        look_and_act.expect("commits");
    });
    assert_eq!(PgConnection::credits(&mut conn, "a"), [5, 5]);

    conn.batch_execute("TRUNCATE ledger").expect("empties it");
    on_two(&|conn| {
        both.wait();
        once(conn, "m1", Dies::Never).expect("applies, or finds it applied");
    });
    assert_eq!(PgConnection::credits(&mut conn, "a"), [5]);
}

#[test]
fn the_id_of_the_event_in_the_place_of_the_operation_s_charges_a_retrying_producer_twice() {
    let (_database, mut conn) = shop();
    // The producer did not hear that it was stored, and stored it again: another record of one payment.
    for message_id in ["m1", "m2", "m1"] {
        let by_event_id = conn.write(|tx| {
            if mark(tx, message_id)? {
                charge(tx)?;
            }
            Ok::<_, Error>(())
        });
        by_event_id.expect("commits");
    }
    assert_eq!(PgConnection::credits(&mut conn, "a"), [5, 5]);
    let never = Dies::Never;
    assert_eq!(charges_of_once(&[("m1", never), ("m2", never), ("m1", never)]), [5]);
}

#[test]
fn a_set_in_memory_charges_twice_when_its_process_is_replaced() {
    let (_database, mut conn) = shop();
    for _process in 0..2 {
        let mut seen = HashSet::new();
        for _delivery in 0..2 {
            if seen.insert("p1") {
                charge(&mut conn).expect("charges");
            }
        }
    }
    assert_eq!(PgConnection::credits(&mut conn, "a"), [5, 5]);
    assert_eq!(charges_of_once(&[("m1", Dies::Never); 4]), [5]);
}

#[test]
fn a_mark_in_a_commit_of_its_own_charges_never_or_twice_when_its_process_dies() {
    let (_database, mut conn) = shop();
    // Marked first: the process dies before the charge, and the redelivery finds the mark.
    for dies in [true, false] {
        if mark(&mut conn, "before").expect("marks") && !dies {
            charge(&mut conn).expect("charges");
        }
    }
    assert_eq!(PgConnection::credits(&mut conn, "a"), Vec::<i64>::new());
    // Marked last: the process dies before the mark, and the redelivery finds none.
    for dies in [true, false] {
        if !is_marked(&mut conn, "after").expect("looks") {
            charge(&mut conn).expect("charges");
            if !dies {
                mark(&mut conn, "after").expect("marks");
            }
        }
    }
    assert_eq!(PgConnection::credits(&mut conn, "a"), [5, 5]);
    assert_eq!(charges_of_once(&[("m1", Dies::BeforeCommit), ("m1", Dies::Never)]), [5]);
}
