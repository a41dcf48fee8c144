//! Three processes consume one queue in order, one of them active and all of them retrying what failed.
//! One after the other is killed at any moment, and some bookings fail at first: each account's bookings
//! still take effect once, in the order in which they were sent.

use std::time::Duration;

use diesel::PgConnection;
use support::bookings::{self, Booked, Booking};
use support::broker::{Corner, rabbitmq};
use support::consumers::{Consumers, counted, reaches};
use support::database::Database;
use support::inbox::Store;
use transport::ExchangeKind;

const ACCOUNTS: i64 = 12;
const EACH: i64 = 150;
const KILLS: i64 = 30;
const BOOKED: &str = "SELECT count(*) AS count FROM bookings";

#[tokio::test(flavor = "multi_thread")]
async fn one_by_one() {
    support::bounded(scenario("1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_batches() {
    support::bounded(scenario("16")).await;
}

async fn scenario(batch: &str) {
    let database = Database::postgres();
    let conn = &mut database.pg();
    bookings::create(conn);
    let corner = Corner::new(rabbitmq());
    let exchange = corner.exchange("exchange", ExchangeKind::Direct).await;
    let queue = corner.queue_with("queue", |queue| queue.single_active_consumer = true).await;
    corner.bind(&exchange, &queue, "ok").await;
    let messages: Vec<_> = (1..=EACH)
        .flat_map(|number| (0..ACCOUNTS).map(move |account| Booking::new(account, number)))
        .map(|booking| booking.message(&exchange))
        .collect();
    corner.publish(&messages).await;

    let orders = [&database.url, &queue, batch, "ordered"];
    let mut consumers = Consumers::start(3, &orders, support::services::amqp_url().as_str());
    for kill in 1..=KILLS {
        reaches(conn, BOOKED, ACCOUNTS * EACH * kill / (KILLS + 2)).await;
        // A moment at random; nothing waits for it.
        std::thread::sleep(Duration::from_micros(fastrand::u64(..50_000)));
        consumers.kill_any();
    }
    reaches(conn, BOOKED, ACCOUNTS * EACH).await;
    support::eventually("everything is acknowledged", async || corner.depth(&queue).await == 0)
        .await;
    let told = consumers.stop();
    println!("{:?}", counted(&told));
    assert!(counted(&told)["behind"] > 0, "nothing ever waited behind anything");

    let order: Vec<Booked> = bookings::booked(conn);
    let mut expected = Vec::new();
    for account in 0..ACCOUNTS {
        for number in 1..=EACH {
            let Booking { account, number, cents } = Booking::new(account, number);
            let last = (number > 1).then_some(number - 1);
            expected.push(Booked { account, number, cents, last });
        }
    }
    expected.sort_by(|one, other| (&one.account, one.number).cmp(&(&other.account, other.number)));
    if let Some((is, shall)) = order.iter().zip(&expected).find(|(is, shall)| is != shall) {
        panic!("{is:?} where {shall:?} should be");
    }
    assert_eq!(order.len(), expected.len());
    assert_eq!(PgConnection::parked(conn), []);
    assert_eq!(PgConnection::starts(conn), 0);
    corner.clean().await;
}
