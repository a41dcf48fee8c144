//! A handler that takes longer than the broker's `consumer_timeout`: the broker closes the channel and
//! delivers again, while the first run is still at work. The second waits for it and is a duplicate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use diesel::PgConnection;
use inbox::{Ending, Inbox, ReplaySafe};
use message::Message;
use support::broker::{Corner, rabbit_settings};
use support::eventually;
use support::inbox::{BILLING, Payment, Running, Store};
use support::node::Node;
use transport::Publisher;
use transport::rabbitmq::RabbitMq;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_rabbitmq_into_postgres() {
    support::bounded(slower_than_the_broker()).await;
}

async fn slower_than_the_broker() {
    let node = Node::start("consumer_timeout = 1000");
    // How often channels look; of every channel opened from now on.
    node.ctl(&["eval", "application:set_env(rabbit, channel_tick_interval, 200)."]);
    let client = || RabbitMq::new(&rabbit_settings(node.url())).expect("valid");
    let corner = Corner::new(client());
    let (exchange, queue) = corner.pair().await;
    let database = PgConnection::database();
    let (begun, release) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let (first, held): (_, Arc<(Mutex<bool>, Condvar)>) = (begun.clone(), Arc::clone(&release));
    let inbox = Inbox::new(BILLING, PgConnection::pool(&database), Arc::new(client()), &queue).on(
        ReplaySafe,
        move |tx: &mut PgConnection, payment: &Payment, _| {
            PgConnection::credit(tx, &payment.account, payment.cents)?;
            if !first.swap(true, Ordering::SeqCst) {
                let (released, changed) = &*held;
                drop(changed.wait_while(released.lock().unwrap(), |released| !*released));
            }
            Ok(())
        },
    );
    let mut running = Running::start(inbox);
    let consumers = ["list_queues", "--no-table-headers", "consumers"];
    eventually("it consumes", async || node.ctl(&consumers).trim() == "1").await;
    // A channel keeps what it was opened with. The second one has as much time as it needs.
    node.ctl(&["eval", "application:set_env(rabbit, consumer_timeout, 600000)."]);
    let paid = Message { exchange, ..Payment::new("p1", 7).message() };
    let paid = Message { routing_key: "ok".into(), ..paid };
    let mut lane = corner.broker.open_lane().await.expect("a lane");
    lane.publish(&[paid]).await.expect("published");
    eventually("the handler runs", async || begun.load(Ordering::SeqCst)).await;
    let conn = &mut PgConnection::connection(&database);
    // The start of a redelivered message is on record before anything else is done with it.
    eventually("the broker has delivered again", async || PgConnection::starts(conn) == 1).await;
    assert_eq!(PgConnection::credits(conn, "a"), Vec::<i64>::new());
    *release.0.lock().unwrap() = true;
    release.1.notify_all();

    assert_eq!(running.endings(2).await, [Ending::Applied, Ending::Duplicate]);
    let unanswered = ["list_queues", "--no-table-headers", "messages"];
    eventually("it is acknowledged", async || node.ctl(&unanswered).trim() == "0").await;
    assert_eq!(running.stop().await, []);
    assert_eq!(PgConnection::credits(conn, "a"), [7]);
    let stored = PgConnection::stored(conn, "p1").expect("applied");
    assert_eq!((stored.duplicates, PgConnection::starts(conn)), (1, 0));
    assert_eq!(PgConnection::parked(conn), []);
    corner.clean().await;
}
