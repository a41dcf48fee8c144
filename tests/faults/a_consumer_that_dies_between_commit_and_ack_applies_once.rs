//! A consumer in a process of its own aborts at a named point. What it had committed is a duplicate at
//! the redelivery; what it had not is applied then.

use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use diesel::{PgConnection, SqliteConnection};
use inbox::{Ending, Inbox};
use support::broker::{Corner, rabbitmq};
use support::inbox::{BILLING, Payment, Running, Store, crediting};
use transport::rabbitmq::RabbitMq;
use transport::{Acknowledge, Delivery, Publisher, Subscriber, Subscription, Unavailable};

/// What the process that dies is told: database kind, where it dies, address and queue.
const ORDERS: [&str; 4] =
    ["TEST_CHILD_STORE", "TEST_CHILD_POINT", "TEST_CHILD_URL", "TEST_CHILD_QUEUE"];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_the_commit_on_postgres() {
    support::bounded(scenario::<PgConnection>("ack", Ending::Duplicate)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_the_commit_on_sqlite() {
    support::bounded(scenario::<SqliteConnection>("ack", Ending::Duplicate)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn before_the_commit_on_postgres() {
    support::bounded(scenario::<PgConnection>("apply", Ending::Applied)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn before_the_commit_on_sqlite() {
    support::bounded(scenario::<SqliteConnection>("apply", Ending::Applied)).await;
}

async fn scenario<C: Store>(point: &'static str, expected: Ending) {
    let database = C::database();
    let corner = Corner::new(rabbitmq());
    let (exchange, queue) = corner.pair().await;
    let mut message = Payment::new("p1", 50).message();
    (message.exchange, message.routing_key) = (exchange, "ok".into());
    corner.broker.open_lane().await.expect("a lane").publish(&[message]).await.expect("published");

    let orders = [C::NAME.to_owned(), point.to_owned(), database.url.clone(), queue.clone()];
    let died = tokio::task::spawn_blocking(move || {
        let name = concat!(module_path!(), "::the_process_that_dies");
        let name = name.split_once("::").map_or(name, |(_, name)| name);
        Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", name, "--ignored", "--nocapture"])
            .envs(ORDERS.into_iter().zip(orders))
            .output()
            .expect("starts")
    });
    let died = died.await.expect("no panic");
    assert!(String::from_utf8_lossy(&died.stderr).contains("dies now"), "{died:?}");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&died.status), Some(6), "{died:?}");

    let conn = &mut C::connection(&database);
    assert_eq!(C::stored(conn, "p1").is_some(), point == "ack");
    let mut running =
        Running::start(crediting(C::pool(&database), Arc::new(corner.broker.clone()), &queue));
    assert_eq!(running.next().await.ending, expected);
    assert_eq!(C::credits(conn, "a"), [50]);
    assert_eq!(running.stop().await, []);
    assert_eq!(corner.depth(&queue).await, 0);
    corner.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "aborts; the other tests of this file start it"]
async fn the_process_that_dies() {
    let orders: Vec<String> = ORDERS.iter().filter_map(|order| std::env::var(order).ok()).collect();
    // Started by hand with all ignored tests, it has nobody to die for.
    let [store, point, url, queue] = &orders[..] else { return };
    if *store == PgConnection::NAME {
        die::<PgConnection>(point, url, queue).await;
    } else {
        die::<SqliteConnection>(point, url, queue).await;
    }
}

async fn die<C: Store>(point: &str, url: &str, queue: &str) {
    let at_ack = point == "ack";
    let subscriber = DiesAtAck { rabbitmq: rabbitmq() };
    let db = db::Db::<C>::open(url, db::Settings::default()).expect("opens");
    let inbox = Inbox::new(BILLING, db, Arc::new(subscriber), queue)
        .on(move |tx: &mut C, payment: &Payment, _| {
            C::credit(tx, &payment.account, payment.cents)?;
            if !at_ack {
                abort();
            }
            Ok(())
        })
        .build()
        .expect("builds");
    inbox.run(std::future::pending()).await.expect("dies before");
}

fn abort() -> ! {
    eprintln!("dies now");
    std::process::abort()
}

/// RabbitMQ, to a consumer that does not live to acknowledge anything.
struct DiesAtAck {
    rabbitmq: RabbitMq,
}

#[async_trait]
impl Subscriber for DiesAtAck {
    async fn subscribe(
        &self,
        queue: &str,
        prefetch: u16,
    ) -> Result<Box<dyn Subscription>, Unavailable> {
        Ok(Box::new(Doomed(self.rabbitmq.subscribe(queue, prefetch).await?)))
    }

    async fn close(&self) {
        Subscriber::close(&self.rabbitmq).await;
    }
}

struct Doomed(Box<dyn Subscription>);

#[async_trait]
impl Subscription for Doomed {
    async fn receive(&mut self) -> Result<Delivery, Unavailable> {
        let delivery = self.0.receive().await?;
        Ok(Delivery { acker: Box::new(Abort), ..delivery })
    }
}

#[derive(Debug)]
struct Abort;

#[async_trait]
impl Acknowledge for Abort {
    async fn ack(self: Box<Self>) -> Result<(), Unavailable> {
        abort()
    }

    async fn requeue(self: Box<Self>) -> Result<(), Unavailable> {
        abort()
    }
}
