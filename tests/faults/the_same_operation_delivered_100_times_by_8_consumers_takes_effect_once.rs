//! The same fact under three message ids, a hundred deliveries, eight competing consumers: one effect,
//! ninety-nine duplicates, and the first result for whoever asks again. The same key with another
//! amount is neither applied nor passed over.

use std::sync::Arc;

use diesel::result::Error;
use diesel::{PgConnection, SqliteConnection};
use inbox::{Builder, Ending, Outcome, Reason};
use message::{Message, MessageId};
use support::broker::{Broker, Corner, rabbitmq};
use support::inbox::{BILLING, Payment, Store, crediting, parked};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transport::memory::MemoryBroker;

const DELIVERIES: usize = 100;
const CONSUMERS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_rabbitmq_into_postgres() {
    support::bounded(scenario::<PgConnection, _>(Corner::new(rabbitmq()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_memory_into_sqlite() {
    support::bounded(scenario::<SqliteConnection, _>(Corner::new(MemoryBroker::new()))).await;
}

async fn scenario<C: Store, B: Broker + Clone>(corner: Corner<B>) {
    let database = C::database();
    let (exchange, queue) = corner.pair().await;
    let paid = Payment::new("p1", 50);
    let as_sent = |mut message: Message| {
        message.exchange.clone_from(&exchange);
        message.routing_key = "ok".into();
        message
    };
    let ids = [MessageId::new(), MessageId::new(), MessageId::new()];
    let batch: Vec<Message> = (0..DELIVERIES)
        .map(|n| Message { id: ids[n % ids.len()], ..as_sent(paid.message()) })
        .collect();
    // All there before anybody receives, so that the consumers really compete for it.
    let mut lane = corner.broker.open_lane().await.expect("a lane");
    lane.publish(&batch).await.expect("published");

    let mut consumers = Consumers::start(|| {
        let db = C::pool_with(&database, db::Settings::default().with_pool_size(2));
        crediting(db, Arc::new(corner.broker.clone()), &queue).concurrency(2)
    });
    let endings = consumers.endings(DELIVERIES).await;
    let count = |wanted: Ending| endings.iter().filter(|ending| **ending == wanted).count();
    assert_eq!((count(Ending::Applied), count(Ending::Duplicate)), (1, DELIVERIES - 1));

    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "a"), [50]);
    let row = C::stored(conn, "p1").expect("stored");
    assert_eq!((row.duplicates, row.conflicts), (DELIVERIES as i64 - 1, 0));
    let (key, fingerprint) = (paid.message().operation_key(), row.fingerprint);
    let again = conn.write(|tx| {
        inbox::once(tx, BILLING, &key, &fingerprint, |_| {
            Ok::<_, Error>("another receipt".to_owned())
        })
    });
    assert_eq!(again, Ok(Outcome::Duplicate("receipt for p1".to_owned())));

    let altered = as_sent(Payment::new("p1", 51).message());
    lane.publish(std::slice::from_ref(&altered)).await.expect("published");
    assert_eq!(consumers.endings(1).await, [parked(Reason::Conflict)]);
    assert_eq!(C::credits(conn, "a"), [50]);
    let rows = C::parked(conn);
    assert_eq!(
        rows.iter().map(|row| row.message_id.clone()).collect::<Vec<_>>(),
        [Some(altered.id.to_string())]
    );
    assert!(ids.iter().any(|id| rows[0].detail.contains(&id.to_string())), "{}", rows[0].detail);
    assert_eq!(C::stored(conn, "p1").map(|row| row.conflicts), Some(1));
    consumers.stop().await;
    corner.clean().await;
}

/// Eight inboxes whose endings arrive in one place.
struct Consumers {
    endings: mpsc::UnboundedReceiver<Ending>,
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl Consumers {
    fn start<C: Store>(mut new: impl FnMut() -> Builder<C>) -> Self {
        let (tell, endings) = mpsc::unbounded_channel();
        let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
        for _ in 0..CONSUMERS {
            let tell = tell.clone();
            let observed = new().observe(move |ended| {
                let _ = tell.send(ended.ending);
            });
            let inbox = observed.build().expect("builds");
            let stopped = stop.clone().cancelled_owned();
            running.spawn(async { inbox.run(stopped).await.expect("stops well") });
        }
        Self { endings, stop, running }
    }

    async fn endings(&mut self, count: usize) -> Vec<Ending> {
        let mut endings = Vec::new();
        for _ in 0..count {
            endings.push(self.endings.recv().await.expect("an ending"));
        }
        endings
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(stopped) = self.running.join_next().await {
            stopped.expect("no panic");
        }
        assert!(self.endings.try_recv().is_err(), "more endings than deliveries");
    }
}
