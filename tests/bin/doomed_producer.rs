//! A producer that stops at a named point and waits to be killed there: `doomed_producer POINT
//! ADDRESS EXCHANGE ID NUMBER`, with POINT `before_insert`, `before_commit` (after the insert) or
//! `after_commit` (before it could tell anybody).
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test program that cannot go on fails its test"
)]

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use message::MessageId;
use outbox::Draft;
use support::events::Fact;

fn main() {
    let orders: Vec<String> = std::env::args().skip(1).collect();
    let [point, address, exchange, id, number] = &orders[..] else { panic!("five arguments") };
    let id: MessageId = id.parse().expect("an id");
    let number = number.parse().expect("a number");
    let mut conn = PgConnection::establish(address).expect("connects");
    conn.transaction::<_, diesel::result::Error, _>(|tx| {
        tx.batch_execute("INSERT INTO business DEFAULT VALUES")?;
        stop_at(point, "before_insert");
        Draft::of(&Fact::of("key-1", number)).exchange(exchange).id(id).enqueue(tx)?;
        stop_at(point, "before_commit");
        Ok(())
    })
    .expect("commits");
    stop_at(point, "after_commit");
}

fn stop_at(point: &str, here: &str) {
    if point == here {
        println!("waiting to be killed");
        loop {
            std::thread::park();
        }
    }
}
