//! Thirty takeovers between two relays while messages are committed without pause, ten by SIGKILL,
//! ten by SIGSTOP and SIGCONT, ten by a lease that ends because the holder cannot reach the database.
//! Nothing is lost, no stale holder moves the cursor, the order of each key is kept.

use diesel::PgConnection;
use outbox::reader::LogStore;
use support::broker::{Corner, rabbitmq};
use support::database::Database;
use support::fence;
use support::ledger::{Arrived, Load};
use support::process::Process;
use support::proxy::{Direction, Proxy};
use support::relays::Relays;
use transport::rabbitmq::RabbitMq;

const TAKEOVERS: usize = 10;
const KEYS: usize = 20;

struct Scene {
    database: Database,
    conn: PgConnection,
    corner: Corner<RabbitMq>,
    exchange: String,
    queue: String,
    load: Load,
}

impl Scene {
    async fn set() -> Self {
        let database = Database::postgres();
        let mut conn = database.pg();
        fence::watch(&mut conn);
        let corner = Corner::new(rabbitmq());
        let (exchange, queue) = corner.fanout().await;
        let load = Load::start(database.pg(), &exchange, KEYS);
        Self { database, conn, corner, exchange, queue, load }
    }

    /// The holder has sent something of its own.
    async fn works(&mut self) {
        let before = self.corner.depth(&self.queue).await;
        support::eventually("the holder sends", async || {
            self.corner.depth(&self.queue).await > before
        })
        .await;
    }

    async fn end(mut self) {
        let ledger = self.load.finish();
        support::eventually("the outbox is drained", async || {
            self.conn.pending("relay").expect("counts") == 0
        })
        .await;
        let mut arrived = Arrived::through(&self.exchange, &self.queue);
        arrived.take(&self.corner).await;
        arrived.complete(&ledger);
        let (messages, repeats) = (arrived.messages(), arrived.repeats());
        println!("{repeats} repeats of {messages} messages in {TAKEOVERS} takeovers");
        assert!(repeats <= TAKEOVERS * Relays::IN_FLIGHT, "{repeats} repeats");
        let terms = fence::terms(&mut self.conn);
        assert!(terms.len() > TAKEOVERS, "{terms:?}");
        assert!(terms.is_sorted_by(|one, next| one.epoch < next.epoch), "{terms:?}");
        fence::holds(&mut self.conn);
        self.corner.clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forced_by_sigkill() {
    let mut scene = Scene::set().await;
    let relays = Relays::on(&scene.database);
    let mut holder = relays.start("relay-0");
    holder.wait_for("relaying");
    for round in 1..=TAKEOVERS {
        let name = format!("relay-{round}");
        let mut standby = relays.start(&name);
        standby.wait_for("standing by");
        scene.works().await;
        holder.kill();
        assert_eq!(fence::successor(&mut scene.conn, round).await, name);
        standby.wait_for("relaying");
        holder = standby;
    }
    scene.end().await;
    relays.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn forced_by_sigstop_and_sigcont() {
    let mut scene = Scene::set().await;
    let relays = Relays::on(&scene.database);
    let mut holder = ("left", relays.start("left"));
    holder.1.wait_for("relaying");
    let mut standby = ("right", relays.start("right"));
    standby.1.wait_for("standing by");
    for round in 1..=TAKEOVERS {
        scene.works().await;
        holder.1.freeze();
        assert_eq!(fence::successor(&mut scene.conn, round).await, standby.0);
        standby.1.wait_for("relaying");
        scene.works().await;
        holder.1.thaw();
        holder.1.wait_for("standing by");
        std::mem::swap(&mut holder, &mut standby);
    }
    scene.end().await;
    relays.clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn forced_by_the_end_of_the_lease() {
    let mut scene = Scene::set().await;
    let relays = Relays::on(&scene.database);
    let mut holder = Remote::start(&scene, &relays, "left").await;
    holder.process.wait_for("relaying");
    let mut standby = Remote::start(&scene, &relays, "right").await;
    standby.process.wait_for("standing by");
    for round in 1..=TAKEOVERS {
        scene.works().await;
        // Its statements still reach the database, when another has long taken over.
        holder.to_database.hold(Direction::ToServer);
        assert_eq!(fence::successor(&mut scene.conn, round).await, standby.name);
        standby.process.wait_for("relaying");
        scene.works().await;
        holder.to_database.resume();
        holder.process.wait_for("standing by");
        std::mem::swap(&mut holder, &mut standby);
    }
    scene.end().await;
    relays.clean();
}

/// A relay with a network between itself and the database.
struct Remote {
    name: &'static str,
    process: Process,
    to_database: Proxy,
}

impl Remote {
    async fn start(scene: &Scene, relays: &Relays, name: &'static str) -> Self {
        let (to_database, url) = Proxy::to_url(&scene.database.url).await;
        let process = relays.clone().database(url).start(name);
        Self { name, process, to_database }
    }
}
