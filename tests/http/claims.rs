//! The layer's statements on its own row, over connections that break. On SQLite there are none.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use inbox::http::telemetry::{REQUESTS, TAKEOVERS};
use inbox::http::{Idempotency, Policy};
use support::database::Database;
use support::eventually;
use support::gate::Gate;
use support::http::{Answer, Server, Shopping, policy};
use support::inbox::Store;
use support::proxy::{Direction, Proxy};
use support::recorded::Recorded;

/// A layered shop behind a proxy; its first run waits at the gate.
struct Shop {
    database: Database,
    proxy: Proxy,
    server: Arc<Server>,
    gate: Gate,
}

impl Shop {
    async fn open(policy: Policy) -> Self {
        let database = PgConnection::database();
        let (proxy, through) = Proxy::to_url(&database.url).await;
        let mut settings = db::Settings::default();
        settings.pool_size = 8;
        let db = db::Db::<PgConnection>::open(&through, settings).expect("opens");
        let front = Idempotency::new(policy, db).expect("a good policy");
        let gate = Gate::default();
        let held = gate.clone();
        let server = Server::layered(&front, move |run| {
            let held = held.clone();
            async move {
                if run == 1 {
                    held.passed().await;
                }
                (StatusCode::CREATED, format!("run {run}")).into_response()
            }
        });
        Self { database, proxy, server: Arc::new(server.await), gate }
    }

    fn post(&self, key: &'static str) -> tokio::task::JoinHandle<Answer> {
        let server = self.server.clone();
        tokio::spawn(async move { server.order(key, 5).await })
    }

    fn connection(&self) -> PgConnection {
        PgConnection::connection(&self.database)
    }

    /// A session that holds back every claim inside its statement, until it commits.
    fn hold_claims(&self) -> PgConnection {
        let mut lock = self.connection();
        lock.batch_execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END $$;
             CREATE TRIGGER at_claim BEFORE INSERT ON inbox_requests
                 FOR EACH ROW EXECUTE FUNCTION wait()",
        )
        .expect("a gate");
        lock.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(42)").expect("closes it");
        lock
    }

    /// It has run once, and a repeat is told what came of it.
    async fn has_run_once(&self) {
        let again = self.server.order("\"k\"", 5).await;
        assert_eq!((again.status, &*again.body, again.is_replayed()), (201, "run 1", true));
        let completed = "inbox_requests WHERE epoch = 1 AND state = 'completed'";
        let completed = PgConnection::count(&mut self.connection(), completed);
        assert_eq!(usize::try_from(completed), Ok(self.server.runs()));
    }
}

/// The first claim takes effect, and its answer is lost.
async fn lost(policy: Policy) -> (Shop, Answer) {
    let shop = Shop::open(policy).await;
    let mut lock = shop.hold_claims();
    let first = shop.post("\"k\"");
    shop.database.until_one_waits();
    shop.proxy.hold(Direction::ToClient);
    lock.batch_execute("COMMIT").expect("opens");
    let mut conn = shop.connection();
    eventually("it is claimed", async || PgConnection::count(&mut conn, "inbox_requests") == 1)
        .await;
    shop.gate.open();
    shop.proxy.cut();
    shop.proxy.resume();
    let first = first.await.expect("no panic");
    (shop, first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_whose_answer_is_lost_is_its_owner_s_all_the_same() {
    support::bounded(async {
        let recorded = Recorded::install();
        let policy = policy();
        let takeovers = format!("{TAKEOVERS} policy={}", policy.name);
        let (shop, first) = lost(policy).await;
        assert_eq!((first.status, &*first.body, first.is_replayed()), (201, "run 1", false));
        shop.has_run_once().await;
        assert_eq!(recorded.counter(&takeovers), Some(0), "nobody else was there");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_that_is_given_up_holds_its_key_for_nobody() {
    support::bounded(async {
        let mut policy = policy();
        policy.transaction_retries = 0;
        let (shop, first) = lost(policy).await;
        first.expect_problem(503, "unavailable");
        let mut conn = shop.connection();
        eventually("the key is free", async || {
            PgConnection::count(&mut conn, "inbox_requests") == 0
        })
        .await;
        assert_eq!(shop.server.order("\"k\"", 5).await.body, "run 1");
        shop.has_run_once().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_goes_away_while_its_key_is_claimed_leaves_a_whole_run_behind() {
    support::bounded(async {
        let shop = Shop::open(policy()).await;
        shop.gate.open();
        let mut lock = shop.hold_claims();
        let client = shop.server.order_unread().await;
        shop.database.until_one_waits();
        drop(client);
        lock.batch_execute("COMMIT").expect("opens");
        let mut conn = shop.connection();
        let completed = "inbox_requests WHERE state = 'completed'";
        eventually("it is completed", async || PgConnection::count(&mut conn, completed) == 1)
            .await;
        shop.has_run_once().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reply_is_kept_however_many_connections_have_died_meanwhile() {
    support::bounded(async {
        let recorded = Recorded::install();
        let policy = policy();
        let unrecorded = format!("{REQUESTS} policy={},ending=unrecorded", policy.name);
        let shop = Shop::open(policy).await;
        let first = shop.post("\"k\"");
        shop.gate.entered().await;
        let mut lock = shop.hold_claims();
        let others = ["\"0\"", "\"1\"", "\"2\"", "\"3\"", "\"4\"", "\"5\"", "\"6\"", "\"7\""];
        let others = others.map(|key| shop.post(key));
        // All connections that the pool has.
        shop.database.until_so_many_wait(8);
        lock.batch_execute("COMMIT").expect("opens");
        for other in others {
            assert_eq!(other.await.expect("no panic").status, 201);
        }
        // As when the server is restarted: each of them fails once.
        shop.proxy.cut();
        shop.gate.open();
        let first = first.await.expect("no panic");
        assert_eq!((first.status, &*first.body), (201, "run 1"));
        shop.has_run_once().await;
        assert_eq!(recorded.counter(&unrecorded), Some(0));
    })
    .await;
}
