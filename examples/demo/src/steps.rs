//! The same story in separate processes: each step is one.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use db::Db;
use diesel::PgConnection;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transport::Subscriber;

use crate::broker::{Broker, Names};
use crate::cli::{Faults, Place, Step};
use crate::faults::{ConsumeFaults, Death, FaultySubscriber};
use crate::figures::Figures;
use crate::progress::Progress;
use crate::services::{WORKERS, postgres, rabbitmq, shared};
use crate::settled::ask;
use crate::shop::Shop;
use crate::{billing, conclude, naive, plan, settled, till};

/// Most payments on their way at once.
const WINDOW: usize = 500;
const LOOK: Duration = Duration::from_millis(50);
/// Nothing credited for so long: nobody consumes.
const STALLED: Duration = Duration::from_secs(60);

/// Takes one step.
pub(crate) async fn run(step: Step) -> Result<ExitCode> {
    match step {
        Step::Setup { at } => setup(&Services::at(&at).await?).await?,
        Step::Produce { at, orders, seed } => {
            produce(&Services::at(&at).await?, orders, seed).await?
        }
        Step::Consume { at, faults } => consume(&Services::at(&at).await?, faults).await?,
        Step::Naive { at, faults } => consume_naively(&Services::at(&at).await?, faults).await?,
        Step::Check { at } => return check(&Services::at(&at).await?).await,
    }
    Ok(ExitCode::SUCCESS)
}

struct Services {
    db: Db<PgConnection>,
    broker: Broker,
    names: Names,
}

impl Services {
    async fn at(place: &Place) -> Result<Self> {
        let db = postgres(&place.database_url).await?;
        let broker = rabbitmq(&place.amqp_url, place.allow_plaintext_broker)?;
        Ok(Self { db, broker, names: Names::of(&place.name) })
    }

    fn faulty(&self, faults: Faults) -> Arc<dyn Subscriber> {
        let Faults { crash_every, redeliver_every } = faults;
        let faults = ConsumeFaults::new(Death::Process, crash_every, u64::MAX, redeliver_every);
        Arc::new(FaultySubscriber {
            inner: self.broker.subscriber.clone(),
            faults: Arc::new(faults),
        })
    }
}

async fn setup(services: &Services) -> Result<()> {
    shared(services.db.clone()).migrate().await?;
    services.broker.declare(&services.names).await?;
    println!("tables, exchange and queues are there");
    Ok(())
}

async fn produce(services: &Services, orders: usize, seed: u64) -> Result<()> {
    let taken = ask(&services.db, PgConnection::payments).await?.len();
    if taken > 0 {
        println!("the shop has taken {taken} payments before; nothing to do");
        return Ok(());
    }
    println!("taking {orders} orders");
    let (progress, window) = (Arc::new(Progress::default()), Arc::new(Semaphore::new(WINDOW)));
    let sales = plan::sales(orders, seed);
    let exchange = services.names.exchange.clone();
    let trading = till::trade(
        services.db.clone(),
        exchange.clone(),
        sales.clone(),
        progress.clone(),
        window.clone(),
    );
    let (traded, credited) =
        tokio::join!(trading, follow(&services.db, orders, &progress, &window));
    traded?;
    credited?;
    till::contradict(&services.db, &exchange, &sales, &progress).await?;
    println!(
        "{orders} orders taken and paid, every payment credited, some told again and with other amounts"
    );
    Ok(())
}

/// Makes room for new payments as others are credited, until all are.
async fn follow(
    db: &Db<PgConnection>,
    orders: usize,
    progress: &Progress,
    window: &Semaphore,
) -> Result<()> {
    let (mut seen, mut changed) = (0, Instant::now());
    while seen < orders {
        let credited = ask(db, |conn| conn.credit_count(billing::CONSUMER)).await?;
        let credited = usize::try_from(credited).unwrap_or(0);
        if credited > seen {
            window.add_permits(credited - seen);
            (seen, changed) = (credited, Instant::now());
        } else if changed.elapsed() > STALLED {
            // Ends the till's wait for room as well.
            window.close();
            let taken = progress.orders.load(Ordering::Relaxed);
            bail!(
                "{seen} of {taken} payments credited and none for {STALLED:?}; check that the relay and `demo consume` run"
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn consume(services: &Services, faults: Faults) -> Result<()> {
    let subscriber = services.faulty(faults);
    println!("crediting payments from {}", services.names.billing);
    let (progress, window) = (Arc::default(), Arc::new(Semaphore::new(0)));
    let stop = stop_signal()?;
    billing::run(
        services.db.clone(),
        subscriber,
        &services.names.billing,
        WORKERS,
        progress,
        window,
        stop,
    )
    .await
}

async fn consume_naively(services: &Services, faults: Faults) -> Result<()> {
    let subscriber = services.faulty(faults);
    println!("crediting payments from {}", services.names.naive);
    let (stop, progress) = (CancellationToken::new(), Arc::<Progress>::default());
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (db, queue) = (services.db.clone(), services.names.naive.clone());
        workers.spawn(naive::run(db, subscriber.clone(), queue, progress.clone(), stop.clone()));
    }
    let signal = stop_signal()?;
    tokio::select! {
        () = signal => stop.cancel(),
        Some(ended) = workers.join_next() => return ended.context("a worker panicked")?,
    }
    while let Some(ended) = workers.join_next().await {
        ended.context("a worker panicked")??;
    }
    Ok(())
}

async fn check(services: &Services) -> Result<ExitCode> {
    let databases = shared(services.db.clone());
    println!("waiting until everything has arrived");
    let standing = settled::wait(&databases, &services.broker, &services.names).await?;
    Ok(conclude(&Figures::gather(&databases, standing).await?, None))
}

/// SIGTERM, as sent by whoever runs containers, or Ctrl-C.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
