//! The snapshot cursor under everything that confuses readers: concurrent writers with rollbacks,
//! savepoints, transactions that take their xid early, bulk transactions, a writer that stays open and
//! a prepared transaction. The same workload is shown to the two readers everybody writes first, and
//! has to catch both: a check that finds nothing wrong with them would prove nothing here either.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Text};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use outbox::Draft;
use outbox::reader::{Claim, Filter, LogStore, ReadLimit};
use support::database::Database;
use support::events::Fact;
use support::readers::{BySeq, ByXmin, Reader, SnapshotCursor};

const WRITERS: usize = 14;
const ROWS: usize = 22_000;
const KEYS: usize = 40;

/// What was wrong with what a reader handed on.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    lost: usize,
    twice: usize,
    never_committed: usize,
    inversions: usize,
    /// Rows that only came once the open and the prepared transaction had ended.
    stalled: usize,
}

/// Inserts `count` facts of a key inside the open transaction. The key's row is locked first, as a
/// business transaction locks its aggregate, so a key's numbers are in order of effect.
fn write(tx: &mut PgConnection, key: usize, count: i64) -> Result<Vec<Fact>, Error> {
    #[derive(QueryableByName)]
    struct Next {
        #[diesel(sql_type = BigInt)]
        number: i64,
    }
    let next: Next =
        sql_query("UPDATE aggregates SET number = number + $2 WHERE key = $1 RETURNING number")
            .bind::<BigInt, _>(key as i64)
            .bind::<BigInt, _>(count)
            .get_result(tx)?;
    let facts: Vec<Fact> = (next.number - count + 1..=next.number)
        .map(|n| Fact::of(&format!("key-{key}"), n))
        .collect();
    if let [fact] = &facts[..] {
        outbox::enqueue(tx, fact)?;
    } else {
        outbox::enqueue_all(tx, facts.iter().map(Draft::of))?;
    }
    Ok(facts)
}

/// One business transaction of a random kind; the facts that took effect.
fn transaction(conn: &mut PgConnection, keyless: &AtomicUsize) -> Vec<Fact> {
    let key = fastrand::usize(..KEYS);
    let count = fastrand::i64(1..6);
    let kind = fastrand::u8(..10);
    let result: Result<Vec<Fact>, Error> = conn.transaction(|tx| match kind {
        0 => {
            write(tx, key, count)?;
            Err(Error::RollbackTransaction)
        }
        1 => {
            let mut facts = write(tx, key, count)?;
            let inner: Result<(), Error> = tx.transaction(|tx| {
                write(tx, key, count)?;
                Err(Error::RollbackTransaction)
            });
            assert!(matches!(inner, Err(Error::RollbackTransaction)));
            facts.extend(tx.transaction(|tx| write(tx, key, count))?);
            Ok(facts)
        }
        // Takes its xid before others that will commit before it even gets its key's lock.
        2..=4 => {
            sql_query("SELECT pg_current_xact_id()").execute(tx)?;
            std::thread::sleep(Duration::from_micros(fastrand::u64(..4_000)));
            write(tx, key, count)
        }
        // Gets its seq long before it commits.
        5 => {
            let facts = write(tx, key, count)?;
            std::thread::sleep(Duration::from_micros(fastrand::u64(..4_000)));
            Ok(facts)
        }
        6 if fastrand::u8(..8) == 0 => write(tx, key, 700),
        7 => {
            let number = keyless.fetch_add(1, Ordering::Relaxed);
            let fact = Fact::keyless(number as i64);
            outbox::enqueue(tx, &fact)?;
            Ok(vec![fact])
        }
        _ => write(tx, key, count),
    });
    match result {
        Ok(facts) => facts,
        Err(Error::RollbackTransaction) => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

/// Runs the workload beside `reader` and compares what it read with what was committed. At the end
/// it waits up to `patience` for rows that other databases' transactions keep back.
fn run(database: &Database, reader: impl Reader, patience: Duration) -> Report {
    let mut admin = database.pg();
    admin
        .batch_execute(&format!(
            "CREATE TABLE aggregates (key bigint PRIMARY KEY, number bigint NOT NULL);
             INSERT INTO aggregates SELECT k, 0 FROM generate_series(0, {}) k",
            KEYS + 1
        ))
        .expect("aggregates");

    let mut open = database.pg();
    open.batch_execute("BEGIN").expect("begins");
    let prepared_name = format!("prepared_{}", fastrand::u64(..));
    let mut committed = Vec::new();
    // Keys of their own: what these two hold back must be their rows and nobody else's.
    let mut held_back = open_write(&mut open, KEYS, 300);
    let mut preparer = database.pg();
    preparer.batch_execute("BEGIN").expect("begins");
    held_back.extend(open_write(&mut preparer, KEYS + 1, 20));
    preparer.batch_execute(&format!("PREPARE TRANSACTION '{prepared_name}'")).expect("prepares");

    let written = Mutex::new(Vec::new());
    let rows = AtomicUsize::new(0);
    let keyless = AtomicUsize::new(0);
    let writing = AtomicBool::new(true);
    let (mut reader, mut read) = std::thread::scope(|scope| {
        let (writing, written, rows, keyless) = (&writing, &written, &rows, &keyless);
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(move || {
                    let mut conn = database.pg();
                    while rows.load(Ordering::Relaxed) < ROWS {
                        let facts = transaction(&mut conn, keyless);
                        rows.fetch_add(facts.len(), Ordering::Relaxed);
                        written.lock().expect("whole").extend(facts);
                    }
                })
            })
            .collect();
        let reading = scope.spawn(move || {
            let (mut conn, mut reader, mut read) = (database.pg(), reader, Vec::new());
            while writing.load(Ordering::Relaxed) {
                reader.step(&mut conn, &mut read);
            }
            while reader.step(&mut conn, &mut read) > 0 {}
            (reader, read)
        });
        writers.into_iter().for_each(|writer| writer.join().expect("writes"));
        writing.store(false, Ordering::Relaxed);
        reading.join().expect("reads")
    });
    committed.extend(written.into_inner().expect("whole"));
    let before = committed.len();
    let stalled = before.saturating_sub(read.len());

    open.batch_execute("COMMIT").expect("commits");
    admin.batch_execute(&format!("COMMIT PREPARED '{prepared_name}'")).expect("commits");
    committed.extend(held_back);
    let until = Instant::now() + patience;
    while reader.step(&mut admin, &mut read) > 0
        || (read.len() < committed.len() && Instant::now() < until)
    {}
    assert!(before >= 20_000, "only {before} rows");
    compare(&committed, &read, stalled)
}

/// Like [`write`], on a connection whose transaction was begun with SQL.
fn open_write(conn: &mut PgConnection, key: usize, count: i64) -> Vec<Fact> {
    let facts: Vec<Fact> = (1..=count).map(|n| Fact::of(&format!("key-{key}"), n)).collect();
    for fact in &facts {
        let payload = serde_json::to_string(fact).expect("JSON");
        sql_query("SELECT outbox_enqueue('test.fact', $1, $2::text::jsonb, ordering_key => $3)")
            .bind::<Text, _>(format!("{}-{}", fact.key.as_deref().unwrap_or_default(), fact.number))
            .bind::<Text, _>(payload)
            .bind::<Text, _>(fact.key.as_deref().unwrap_or_default())
            .execute(conn)
            .expect("enqueues");
    }
    facts
}

fn compare(committed: &[Fact], read: &[Fact], stalled: usize) -> Report {
    let of = |fact: &Fact| (fact.key.clone(), fact.number);
    let mut times: HashMap<_, usize> = HashMap::new();
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let mut inversions = 0;
    for fact in read {
        *times.entry(of(fact)).or_default() += 1;
        if let Some(key) = &fact.key {
            let last = last.entry(key.clone()).or_default();
            if fact.number < *last {
                inversions += 1;
            }
            *last = fact.number.max(*last);
        }
    }
    let known: HashSet<_> = committed.iter().map(of).collect();
    Report {
        lost: known.iter().filter(|fact| !times.contains_key(*fact)).count(),
        twice: times.values().filter(|times| **times > 1).count(),
        never_committed: times.keys().filter(|fact| !known.contains(*fact)).count(),
        inversions,
        stalled,
    }
}

#[test]
fn by_the_snapshot_cursor() {
    let database = Database::postgres();
    let Claim::Taken(_, position) =
        database.pg().claim("relay", "me", Duration::from_secs(60)).expect("claims")
    else {
        panic!("held")
    };
    assert_eq!(run(&database, SnapshotCursor(position), Duration::ZERO), Report::default());
}

#[test]
fn a_reader_by_seq_is_caught() {
    let database = Database::postgres();
    let report = run(&database, BySeq(0), Duration::ZERO);
    assert!(report.lost > 0, "{report:?}");
}

#[test]
fn a_reader_by_xmin_is_caught() {
    let database = Database::postgres();
    let report = run(&database, ByXmin("0".to_owned(), 0), Duration::from_secs(60));
    assert_eq!(report.twice, 0, "{report:?}");
    assert!(report.stalled > 0 && report.inversions > 0, "{report:?}");
}

/// A late transaction far larger than a step comes in pieces, all of it, once, in order, and what
/// was committed after it comes after it.
#[test]
fn a_huge_late_transaction_is_read_in_bounded_pieces() {
    const HUGE: i64 = 60_000;
    let database = Database::postgres();
    let (mut late, mut other, mut conn) = (database.pg(), database.pg(), database.pg());
    let Claim::Taken(mut lease, mut position) =
        conn.claim("relay", "me", Duration::from_secs(60)).expect("claims")
    else {
        panic!("held")
    };
    late.batch_execute("BEGIN").expect("begins");
    sql_query(
        "INSERT INTO outbox_messages (kind, operation, ordering_key, payload)
         SELECT 'test.fact', 'late-' || n, 'late', convert_to(json_build_object('key', 'late', 'number', n)::text, 'UTF8')
         FROM generate_series(1, $1) n",
    )
    .bind::<BigInt, _>(HUGE)
    .execute(&mut late)
    .expect("inserts");
    let between = [Fact::of("other", 1), Fact::of("other", 2)];
    other
        .transaction(|tx| outbox::enqueue_all(tx, between.iter().map(Draft::of)))
        .expect("enqueues");
    let limit = ReadLimit { rows: 1_000, bytes: 1 << 20 };
    let first = conn.read(&position, &Filter::default(), limit).expect("reads");
    assert_eq!(first.entries.len(), 2, "nothing waits for the open transaction");
    position = first.next;
    late.batch_execute("COMMIT").expect("commits");
    let after = Fact::of("late", HUGE + 1);
    other.transaction(|tx| outbox::enqueue(tx, &after)).expect("enqueues");

    let mut numbers = Vec::new();
    let mut steps = 0;
    loop {
        let chunk = conn.read(&position, &Filter::default(), limit).expect("reads");
        assert!(chunk.entries.len() <= 1_000);
        // Stored and taken up again after each step, as by a relay that is restarted each time.
        assert_eq!(
            conn.advance(&lease, &chunk.next, &[]).expect("writes"),
            outbox::reader::Advance::Done
        );
        let Claim::Taken(again, stored) =
            conn.claim("relay", "me", Duration::from_secs(60)).expect("claims")
        else {
            panic!("held")
        };
        assert_eq!(stored, chunk.next);
        lease = again;
        numbers.extend(
            chunk.entries.iter().map(|entry| Fact::from_payload(&entry.message.payload).number),
        );
        let unread = HUGE + 1 - numbers.len() as i64;
        assert_eq!(
            conn.pending("relay").expect("counts"),
            unread,
            "the view agrees with the reader"
        );
        position = chunk.next;
        steps += 1;
        if chunk.exhausted {
            break;
        }
    }
    assert_eq!(numbers, (1..=HUGE + 1).collect::<Vec<_>>());
    assert!(steps >= 60, "{steps}");
}
