//! The whole story in one process.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::select;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Names};
use crate::databases::Databases;
use crate::faults::{ConsumeFaults, Death, FaultySubscriber, PublishFaults};
use crate::figures::{Figures, Provoked};
use crate::plan::Sale;
use crate::progress::{Progress, Style, show};
use crate::settled::Standing;
use crate::shop::Shop;
use crate::{billing, naive, plan, relays, settled, till};

/// How often the relay and each consumer die.
const DEATHS: u64 = 3;
/// One delivery in so many is delivered again although it was dealt with.
const REDELIVER_ONE_IN: u64 = 20;
/// Most payments on their way, so that what is measured is the way and not a backlog.
const WINDOW: usize = 200;
const TILLS: usize = 2;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) orders: usize,
    pub(crate) seed: u64,
    pub(crate) style: Style,
    /// Consumers' transactions at once.
    pub(crate) workers: usize,
}

/// Plays it and returns what came of it.
pub(crate) async fn play<C: Shop>(
    databases: &Databases<C>,
    broker: &Broker,
    names: &Names,
    wanted: Wanted,
) -> Result<(Figures, Provoked)> {
    databases.migrate().await?;
    broker.declare(names).await?;
    let sales = plan::sales(wanted.orders, wanted.seed);
    let told = sales
        .iter()
        .map(|sale| 1 + u64::from(sale.again) + u64::from(sale.altered.is_some()))
        .sum::<u64>();
    let die_every = told / (DEATHS + 1);
    let consumer =
        || Arc::new(ConsumeFaults::new(Death::Subscription, die_every, DEATHS, REDELIVER_ONE_IN));
    let provoked = Provoked {
        relay: Arc::new(PublishFaults::new(die_every, DEATHS)),
        billing: consumer(),
        naive: consumer(),
        deaths: DEATHS,
        orders: wanted.orders,
        window: WINDOW,
    };
    let progress = Arc::new(Progress::default());
    let relay = provoked.relay.clone();
    let shown =
        show(wanted.style, wanted.orders as u64, told, progress.clone(), move || relay.confirmed());
    let played =
        perform(databases, broker, names, wanted.workers, sales, &provoked, progress).await;
    shown.finish().await;
    Ok((Figures::gather(databases, played?).await?, provoked))
}

async fn perform<C: Shop>(
    databases: &Databases<C>,
    broker: &Broker,
    names: &Names,
    workers: usize,
    sales: Vec<Sale>,
    provoked: &Provoked,
    progress: Arc<Progress>,
) -> Result<Standing> {
    let (stop, window) = (CancellationToken::new(), Arc::new(Semaphore::new(WINDOW)));
    let mut services = JoinSet::new();
    services.spawn(relays::run(
        databases.shop.clone(),
        broker.clone(),
        provoked.relay.clone(),
        stop.clone(),
    ));
    let subscriber = |faults: &Arc<ConsumeFaults>| {
        Arc::new(FaultySubscriber { inner: broker.subscriber.clone(), faults: faults.clone() })
    };
    for _ in 0..workers {
        let (db, queue) = (databases.naive.clone(), names.naive.clone());
        services.spawn(naive::run(
            db,
            subscriber(&provoked.naive),
            queue,
            progress.clone(),
            stop.clone(),
        ));
    }
    let inbox = {
        let (db, subscriber) = (databases.billing.clone(), subscriber(&provoked.billing));
        let (queue, progress) = (names.billing.clone(), progress.clone());
        let (window, stop) = (window.clone(), stop.clone());
        async move {
            billing::run(db, subscriber, &queue, workers, progress, window, stop.cancelled()).await
        }
    };
    services.spawn(inbox);

    let story = async {
        let mut tills = JoinSet::new();
        for number in 0..TILLS {
            let share: Vec<_> = sales.iter().skip(number).step_by(TILLS).cloned().collect();
            let (db, exchange) = (databases.shop.clone(), names.exchange.clone());
            tills.spawn(till::trade(db, exchange, share, progress.clone(), window.clone()));
        }
        while let Some(till) = tills.join_next().await {
            till.context("a till panicked")??;
        }
        settled::wait(databases, broker, names).await?;
        till::contradict(&databases.shop, &names.exchange, &sales, &progress).await?;
        settled::wait(databases, broker, names).await
    };
    let played = select! {
        played = story => played,
        // Through the usual end, so that nothing is left behind.
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        // None of them ends by itself.
        ended = services.join_next() => match ended {
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panicked)) => Err(panicked.into()),
            Some(Ok(Ok(()))) | None => Err(anyhow::anyhow!("a service stopped without being asked to")),
        },
    };
    stop.cancel();
    while let Some(ended) = services.join_next().await {
        ended.context("a service panicked")??;
    }
    played?;
    // Once more, now that nobody receives: what was out and unanswered is back in its queue.
    Standing::look(databases, broker, names).await
}
