//! The broker away, at the start and later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use diesel::SqliteConnection;
use inbox::{Ending, RunError, Settings};
use support::broker::Corner;
use support::feed::{Answer, Feed};
use support::inbox::{Payment, Running, Store, crediting};
use support::{bounded, eventually};
use transport::memory::MemoryBroker;
use transport::{Publisher, Subscriber, Subscription, Unavailable};

fn quick() -> Settings {
    let mut settings = Settings::default();
    settings.reconnect = Duration::from_millis(1);
    settings.reconnect_max = Duration::from_millis(10);
    settings
}

#[tokio::test]
async fn after_a_lost_connection_it_subscribes_again_and_nothing_is_applied_twice() {
    bounded(async {
        let database = SqliteConnection::database();
        let broker = MemoryBroker::new();
        let corner = Corner::new(broker.clone());
        let (exchange, queue) = corner.pair().await;
        let send = async |payment: &str, cents| {
            let mut message = Payment::new(payment, cents).message();
            (message.exchange, message.routing_key) = (exchange.clone(), "ok".into());
            broker.open_lane().await.expect("a lane").publish(&[message]).await.expect("published");
        };
        let builder =
            crediting(SqliteConnection::pool(&database), Arc::new(broker.clone()), &queue);
        let mut running = Running::start(builder.settings(quick()));
        send("p1", 1).await;
        assert_eq!(running.next().await.ending, Ending::Applied);
        broker.disconnect();
        broker.reconnect();
        send("p2", 2).await;
        assert_eq!(running.next().await.ending, Ending::Applied);
        assert_eq!(
            SqliteConnection::credits(&mut SqliteConnection::connection(&database), "a"),
            [1, 2]
        );
        assert_eq!(running.stop().await, []);
        corner.clean().await;
    })
    .await;
}

/// A broker that answers the first requests as told, and then as a feed.
struct Reluctant {
    feed: Feed,
    asked: Arc<AtomicU32>,
    answer: fn(u32) -> Option<Unavailable>,
}

#[async_trait]
impl Subscriber for Reluctant {
    async fn subscribe(
        &self,
        queue: &str,
        prefetch: u16,
    ) -> Result<Box<dyn Subscription>, Unavailable> {
        match (self.answer)(self.asked.fetch_add(1, Ordering::SeqCst)) {
            Some(error) => Err(error),
            None => self.feed.subscribe(queue, prefetch).await,
        }
    }

    async fn close(&self) {}
}

fn refused() -> Unavailable {
    Unavailable::LoginRefused {
        address: "broker:5672".into(),
        user: "u".into(),
        vhost: "/".into(),
        reason: "no".into(),
    }
}

fn missing() -> Unavailable {
    Unavailable::NoQueue { queue: "q".into(), reason: "not declared".into() }
}

#[tokio::test]
async fn a_refused_login_at_the_first_connection_stops_it() {
    bounded(async {
        let database = SqliteConnection::database();
        let asked = Arc::new(AtomicU32::new(0));
        let broker =
            Reluctant { feed: Feed::new(), asked: asked.clone(), answer: |_| Some(refused()) };
        let inbox = crediting(SqliteConnection::pool(&database), Arc::new(broker), "q")
            .build()
            .expect("builds");
        let error = inbox.run(std::future::pending()).await.expect_err("refused");
        assert!(matches!(error, RunError::Broker(Unavailable::LoginRefused { .. })), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_is_not_there_yet_is_waited_for() {
    bounded(async {
        let database = SqliteConnection::database();
        let feed = Feed::new();
        let asked = Arc::new(AtomicU32::new(0));
        let answer = |asked| (asked < 3).then(missing);
        let broker = Reluctant { feed: feed.clone(), asked: asked.clone(), answer };
        let builder =
            crediting(SqliteConnection::pool(&database), Arc::new(broker), "q").settings(quick());
        let number = feed.deliver(&Payment::new("p1", 1).message());
        let mut running = Running::start(builder);
        assert_eq!(running.next().await.ending, Ending::Applied);
        assert_eq!((asked.load(Ordering::SeqCst), feed.answer(number)), (4, Some(Answer::Ack)));
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn shutdown_ends_the_wait_for_a_broker() {
    bounded(async {
        let database = SqliteConnection::database();
        let asked = Arc::new(AtomicU32::new(0));
        let broker =
            Reluctant { feed: Feed::new(), asked: asked.clone(), answer: |_| Some(missing()) };
        let mut settings = Settings::default();
        settings.reconnect = Duration::from_secs(3600);
        settings.reconnect_max = Duration::from_secs(3600);
        let builder =
            crediting(SqliteConnection::pool(&database), Arc::new(broker), "q").settings(settings);
        let running = Running::start(builder);
        eventually("it has asked", async || asked.load(Ordering::SeqCst) == 1).await;
        assert_eq!(running.stop().await, []);
    })
    .await;
}
