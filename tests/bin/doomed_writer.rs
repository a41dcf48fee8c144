//! A producer on SQLite that writes until it is killed: `doomed_writer NAME FILE EXCHANGE KEYS`.
//! Prints the number of each of its transactions once it is committed.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test program that cannot go on fails its test"
)]

use db::{Backend, Db};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel::{SqliteConnection, sql_query};
use outbox::{Draft, EnqueueError};
use support::events::Fact;

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

fn main() {
    let orders: Vec<String> = std::env::args().skip(1).collect();
    let [name, file, exchange, keys] = &orders[..] else { panic!("four arguments") };
    let keys: usize = keys.parse().expect("a number");
    let db = Db::<SqliteConnection>::open(file, db::Settings::default()).expect("opens");
    let mut conn = db.get::<std::convert::Infallible>().expect("connects");
    loop {
        let rollback = fastrand::u8(..10) == 0;
        let written: Result<i64, EnqueueError> = conn.write(|tx| {
            let number = next(tx, name)?;
            for _ in 0..fastrand::u8(1..=5) {
                let key = format!("key-{}", fastrand::usize(..keys));
                let fact = Fact::of(&key, next(tx, &key)?);
                Draft::of(&fact).exchange(exchange).enqueue(tx)?;
            }
            if rollback {
                Err(diesel::result::Error::RollbackTransaction.into())
            } else {
                Ok(number)
            }
        });
        match written {
            Ok(number) => println!("{number}"),
            Err(_) if rollback => {}
            Err(error) => panic!("writes: {error}"),
        }
        // SQLite hands the lock to whoever asks first after it is free: without a pause the one that
        // had it gets it again, and everybody else starves.
        std::thread::sleep(std::time::Duration::from_micros(fastrand::u64(..4_000)));
    }
}

/// The business table: counts up within the transaction that enqueues.
fn next(tx: &mut SqliteConnection, what: &str) -> QueryResult<i64> {
    let row: Number = sql_query(
        "INSERT INTO written (what, number) VALUES (?1, 1)
         ON CONFLICT (what) DO UPDATE SET number = number + 1 RETURNING number",
    )
    .bind::<Text, _>(what)
    .get_result(tx)?;
    Ok(row.number)
}
