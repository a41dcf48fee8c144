//! A handler that hangs, in the database or in its own code, is given up at its deadline: its message is
//! parked and tried again, its worker goes on with others, also where it is the only one, and whatever it does
//! later changes nothing. A process with such a thread ends when it is told to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use diesel::{PgConnection, RunQueryDsl, SqliteConnection, sql_query};
use inbox::{
    Builder, Consumer, Context, Ending, Failure, Handler, Inbox, OnReplay, Parked, Reason,
    ReplaySafe, Settings,
};
use support::database::Database;
use support::eventually;
use support::feed::Feed;
use support::inbox::{BILLING, Payment, Running, Store, Told, parked};
use support::process::Process;
use support::recorded::Recorded;

/// Long beside what ends earlier: a limit of the database, and everything that does not hang.
const DEADLINE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(1);
const OTHERS: usize = 10;
const HUNG: Ending = parked(Reason::Hung);

/// As many connections as workers: those that hang must not keep the others from theirs.
fn limits(concurrency: usize) -> db::Settings {
    let mut limits =
        db::Settings::default().with_pool_size(u32::try_from(concurrency).expect("few"));
    limits.statement_timeout = LIMIT;
    limits.idle_in_transaction_timeout = LIMIT;
    limits.lock_timeout = Duration::from_millis(100);
    limits
}

fn settings(concurrency: usize) -> Settings {
    let mut settings = Settings::default();
    settings.concurrency = concurrency;
    settings.handler_deadline = DEADLINE;
    settings.backoff = Duration::from_millis(10);
    settings.retry_poll = Duration::from_millis(20);
    settings
}

/// As many messages that hang as there are workers, and others after them.
fn deliver(feed: &Feed, hanging: usize) {
    for number in 0..hanging {
        feed.deliver(&Payment::new(&format!("hangs-{number}"), 7).message());
    }
    for number in 0..OTHERS {
        let mut other = Payment::new(&format!("other-{number}"), 1);
        other.account = "others".into();
        feed.deliver(&other.message());
    }
}

fn inbox(
    consumer: &str,
    database: &Database,
    feed: &Feed,
    concurrency: usize,
    handler: impl Fn(&mut PgConnection, &Payment, &Context<'_>) -> Result<(), Failure>
    + Send
    + Sync
    + 'static,
) -> Builder<PgConnection> {
    let db = PgConnection::pool_with(database, limits(concurrency));
    Inbox::new(Consumer(consumer), db, Arc::new(feed.clone()), "q")
        .on(ReplaySafe, handler)
        .settings(settings(concurrency))
}

fn hangs(payment: &Payment) -> bool {
    payment.payment.starts_with("hangs")
}

fn lot(database: &Database, consumer: &str) -> Vec<Parked> {
    inbox::parked(&mut database.pg(), Consumer(consumer), 0, 1000).expect("reads")
}

fn hung_count(recorded: &Recorded, consumer: &str) -> Option<u64> {
    recorded.counter(&format!("counterfoil_inbox_hung_total consumer={consumer}"))
}

/// Reads endings until `done` of them are the one that ends a message; returns all.
async fn until(running: &mut Running, done: usize, last: &[Ending]) -> Vec<Told> {
    let mut told = Vec::new();
    while told.iter().filter(|told: &&Told| last.contains(&told.ending)).count() < done {
        told.push(running.next().await);
    }
    told
}

/// A statement for ever.
async fn in_one_statement(concurrency: usize) {
    let consumer = format!("in-one-statement-{concurrency}");
    let recorded = Recorded::install();
    let (database, feed) = (PgConnection::database(), Feed::new());
    let handler = |tx: &mut PgConnection, payment: &Payment, context: &Context<'_>| {
        PgConnection::credit(tx, &payment.account, payment.cents)?;
        if hangs(payment) && context.attempt() == 1 {
            sql_query("SELECT pg_sleep(600)").execute(tx)?;
        }
        Ok(())
    };
    let mut running = Running::start(inbox(&consumer, &database, &feed, concurrency, handler));
    deliver(&feed, concurrency);
    let told = until(&mut running, concurrency + OTHERS, &[Ending::Applied]).await;
    // The database ends it before the deadline, and says so.
    let failed = told.iter().filter(|told| told.ending == parked(Reason::Failed)).count();
    assert_eq!((failed, told.len()), (concurrency, 2 * concurrency + OTHERS));
    assert_eq!(running.stop().await, []);
    let conn = &mut database.pg();
    assert_eq!(PgConnection::credits(conn, "a"), vec![7; concurrency]);
    assert_eq!(PgConnection::credits(conn, "others").len(), OTHERS);
    assert_eq!(lot(&database, &consumer), []);
    assert_eq!(hung_count(&recorded, &consumer), Some(0));
}

/// Short statements for ever: no limit of the database ends them. Released, they commit late.
async fn in_many_statements(concurrency: usize) {
    let consumer = format!("in-many-statements-{concurrency}");
    let recorded = Recorded::install();
    let (database, feed) = (PgConnection::database(), Feed::new());
    let go = Arc::new(AtomicBool::new(false));
    let released = go.clone();
    let handler = move |tx: &mut PgConnection, payment: &Payment, _: &Context<'_>| {
        PgConnection::credit(tx, &payment.account, payment.cents)?;
        while hangs(payment) && !released.load(Ordering::SeqCst) {
            sql_query("SELECT pg_sleep(0.05)").execute(tx)?;
        }
        Ok(())
    };
    let all_are = |told: &[Told], usual: [Ending; 2]| {
        // A retry is put off as long as its operation is held.
        let put_off = |told: &Told| told.ending == Ending::Unsettled && told.retried;
        assert!(told.iter().all(|told| usual.contains(&told.ending) || put_off(told)), "{told:?}");
    };
    let mut running = Running::start(inbox(&consumer, &database, &feed, concurrency, handler));
    deliver(&feed, concurrency);
    // While all that hang still hold their operations.
    let told = until(&mut running, OTHERS, &[Ending::Applied]).await;
    let hung = told.iter().filter(|told| told.ending == HUNG).count();
    assert!(hung >= concurrency, "{told:?}");
    all_are(&told, [HUNG, Ending::Applied]);
    for row in lot(&database, &consumer) {
        assert_eq!((row.reason, row.attempts), (Reason::Hung, 1), "waiting spends no attempt");
        assert!(row.detail.contains("longer than 3s"), "{}", row.detail);
    }
    assert_eq!(hung_count(&recorded, &consumer), Some(concurrency as u64));
    go.store(true, Ordering::SeqCst);
    let told = until(&mut running, concurrency, &[Ending::Duplicate]).await;
    all_are(&told, [HUNG, Ending::Duplicate]);
    assert_eq!(running.stop().await, []);
    assert_eq!(PgConnection::credits(&mut database.pg(), "a"), vec![7; concurrency]);
    assert_eq!(lot(&database, &consumer), []);
}

/// Opened once, for good.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn pass(&self) {
        let open = self.0.lock().unwrap();
        drop(self.1.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

async fn in_its_own_code(concurrency: usize) {
    let consumer = format!("in-its-own-code-{concurrency}");
    let recorded = Recorded::install();
    let (database, feed, gate) = (PgConnection::database(), Feed::new(), Arc::new(Gate::default()));
    let closed = gate.clone();
    let handler = move |tx: &mut PgConnection, payment: &Payment, context: &Context<'_>| {
        PgConnection::credit(tx, &payment.account, payment.cents)?;
        if hangs(payment) && context.attempt() == 1 {
            closed.pass();
        }
        Ok(())
    };
    let mut running = Running::start(inbox(&consumer, &database, &feed, concurrency, handler));
    deliver(&feed, concurrency);
    // What hangs lets go of its operation when the database ends its session, and is applied.
    let told = until(&mut running, concurrency + OTHERS, &[Ending::Applied]).await;
    let hung = told.iter().filter(|told| told.ending == HUNG).count();
    assert!(hung >= concurrency, "{told:?}");
    assert_eq!(hung_count(&recorded, &consumer), Some(concurrency as u64));
    assert_eq!(running.stop().await, []);
    // Now they return, and would commit.
    assert!(Arc::strong_count(&gate) > 1, "their threads hold the handler");
    gate.open();
    eventually("every thread has ended", async || Arc::strong_count(&gate) == 1).await;
    assert_eq!(PgConnection::credits(&mut database.pg(), "a"), vec![7; concurrency]);
    assert_eq!(lot(&database, &consumer), []);
}

/// Waits for the world, for ever, the first time.
struct Prepares;

impl<C: Store> Handler<C> for Prepares {
    const ON_REPLAY: OnReplay = ReplaySafe;
    type Event = Payment;
    type Prepared = ();
    type Receipt = ();

    async fn prepare(&self, payment: &Payment, context: &Context<'_>) -> Result<(), Failure> {
        if hangs(payment) && context.attempt() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn apply(
        &self,
        tx: &mut C,
        payment: &Payment,
        (): &(),
        _: &Context<'_>,
    ) -> Result<(), Failure> {
        Ok(C::credit(tx, &payment.account, payment.cents)?)
    }
}

async fn before_its_transaction<C: Store>(concurrency: usize) {
    let (database, feed) = (C::database(), Feed::new());
    let db = C::pool_with(&database, limits(concurrency));
    let builder = Inbox::new(BILLING, db, Arc::new(feed.clone()), "q")
        .handler(Prepares)
        .settings(settings(concurrency));
    let mut running = Running::start(builder);
    deliver(&feed, concurrency);
    let told = until(&mut running, concurrency + OTHERS, &[Ending::Applied]).await;
    let hung = told.iter().filter(|told| told.ending == HUNG).count();
    assert_eq!((hung, told.len()), (concurrency, 2 * concurrency + OTHERS));
    assert_eq!(running.stop().await, []);
    let conn = &mut C::connection(&database);
    assert_eq!((C::credits(conn, "a"), C::parked(conn)), (vec![7; concurrency], vec![]));
}

/// A process whose handler will never return is told to stop.
fn its_process_ends<C: Store>() {
    let database = C::database();
    let mut process = Process::start("hung_consumer", &[C::NAME, &database.url], &[]);
    assert!(process.finish().success(), "{}", process.output);
    assert!(process.output.contains("the inbox has stopped"), "{}", process.output);
    assert!(process.output.contains("main ends"), "{}", process.output);
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "a"), [0; 0]);
}

macro_rules! with {
    ($($scenario:ident),+) => {
        $(mod $scenario {
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn with_one_worker() {
                support::bounded(super::$scenario(1)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn with_all_of_four_workers() {
                support::bounded(super::$scenario(4)).await;
            }
        })+
    };
}

with!(in_one_statement, in_many_statements, in_its_own_code);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_prepare_on_postgres() {
    support::bounded(before_its_transaction::<PgConnection>(1)).await;
    support::bounded(before_its_transaction::<PgConnection>(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_prepare_on_sqlite() {
    support::bounded(before_its_transaction::<SqliteConnection>(1)).await;
}

#[test]
fn a_process_with_a_hanging_thread_ends_on_postgres() {
    its_process_ends::<PgConnection>();
}

#[test]
fn a_process_with_a_hanging_thread_ends_on_sqlite() {
    its_process_ends::<SqliteConnection>();
}
