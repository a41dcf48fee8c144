//! How fast an inbox applies what comes in, beside a handler's bare transaction fed from the same queue, in
//! turn in one run; what a batch gains, what duplicates cost, and what ten million operations cost.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use benches::{Figures, Fixture, Paid, Payments, Ready, book_in_batches, consume_bare};
use clap::Parser;
use db::Db;
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use inbox::{Consumer, Ending, Inbox, ReplaySafe};
use tokio::sync::Notify;
use transport::rabbitmq::{RabbitMq, RabbitSettings};

/// Applies payments with and without an inbox, in turn. `single_ratio` is inbox / bare transaction,
/// `batch_ratio` a batch of 64 / single deliveries with one worker, `duplicate_ratio` duplicates / first
/// deliveries, `full_table_ratio` a full table / an empty one; `savepoint_ratio` is what is left of the rate of a
/// batch of bare bookings with a savepoint around each. The handler has no result to keep but for `receipt_ratio`,
/// which is `single_ratio` of one that has.
#[derive(Parser)]
struct Options {
    /// Messages in each measurement of single deliveries; batches get twice as many.
    #[arg(long, default_value_t = 10_000)]
    messages: usize,
    /// Measurements of each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Workers, but for the batches, which have one.
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    /// Deliveries in a batch.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Operations in the full table.
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Where to write the figures.
    #[arg(long)]
    json: Option<PathBuf>,
}

struct Bench {
    fixture: Fixture,
    payments: Payments,
    db: Db<PgConnection>,
}

impl Bench {
    /// Puts payments into the queue and applies them; deliveries a second.
    async fn inbox(
        &self,
        payments: &Arc<[Ready]>,
        concurrency: usize,
        batch: usize,
        expected: Ending,
        receipt: Option<&'static str>,
    ) -> Result<f64> {
        self.payments.publish(payments).await?;
        self.settle().await?;
        let mut settings = RabbitSettings::new(&self.fixture.amqp_url);
        settings.allow_plaintext = true;
        let subscriber = Arc::new(RabbitMq::new(&settings)?);
        let (ended, others) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, all) = (payments.len(), Arc::new(Notify::new()));
        let (counted, odd, done) = (ended.clone(), others.clone(), all.clone());
        let inbox =
            Inbox::new(Consumer("bench"), self.db.clone(), subscriber, self.fixture.exchange())
                .on(ReplaySafe, move |tx: &mut PgConnection, paid: &Paid, _| {
                    paid.book(tx)?;
                    Ok(receipt)
                })
                .concurrency(concurrency)
                .batch(batch)
                .observe(move |told| {
                    if told.ending != expected {
                        odd.fetch_add(1, Ordering::Relaxed);
                    }
                    if counted.fetch_add(1, Ordering::Relaxed) + 1 == count {
                        done.notify_one();
                    }
                })
                .build()?;
        let start = Instant::now();
        inbox.run(all.notified()).await?;
        let seconds = start.elapsed().as_secs_f64();
        let others = others.load(Ordering::Relaxed);
        ensure!(others == 0, "{others} deliveries did not end as {expected}");
        self.fixture.expect_in_queue(0).await?;
        Ok(count as f64 / seconds)
    }

    /// Lets nothing that one measurement left to do (vacuum, statistics, dirty pages) fall into the next.
    async fn settle(&self) -> Result<()> {
        let address = self.fixture.database_url.clone();
        let settled = tokio::task::spawn_blocking(move || {
            let conn = &mut PgConnection::establish(&address)?;
            for statement in [
                "VACUUM (ANALYZE) inbox_operations",
                "VACUUM (ANALYZE) balances",
                "VACUUM (ANALYZE) postings",
                "CHECKPOINT",
            ] {
                // Not in one go: VACUUM wants to be alone.
                conn.batch_execute(statement)?;
            }
            anyhow::Ok(())
        });
        settled.await?
    }

    /// Bookings a second with no queue and no inbox around them, by one worker.
    async fn booked(&self, payments: Vec<Paid>, batch: usize, savepoints: bool) -> Result<f64> {
        self.settle().await?;
        let (start, count) = (Instant::now(), payments.len());
        let booked =
            self.db.call(move |conn| book_in_batches(conn, &payments, batch, savepoints)).await;
        booked?;
        Ok(count as f64 / start.elapsed().as_secs_f64())
    }

    async fn bare(&self, payments: &Arc<[Ready]>, concurrency: usize) -> Result<f64> {
        self.payments.publish(payments).await?;
        self.settle().await?;
        let start = Instant::now();
        consume_bare(&self.fixture, &self.db, concurrency, payments.len()).await?;
        let rate = payments.len() as f64 / start.elapsed().as_secs_f64();
        self.fixture.expect_in_queue(0).await?;
        Ok(rate)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let fixture = Fixture::new().await?;
    let pool = u32::try_from(options.concurrency + 2).context("too many workers")?;
    let db = Db::open(&fixture.database_url, db::Settings::default().with_pool_size(pool))?;
    let payments = Payments::on(&fixture).await?;
    let mut bench = Bench { fixture, payments, db };
    let mut figures = Figures::default();
    let empty = rounds(&mut bench, &options, &mut figures).await?;
    let full = filled(&mut bench, &options).await?;
    figures.note("empty_table_per_s", empty);
    figures.note("full_table_per_s", full);
    figures.note("full_table_ratio", full / empty);
    if let Some(path) = &options.json {
        figures.write(path)?;
    }
    bench.fixture.remove().await
}

/// Everything that is compared on a table that is next to empty; the rate of single deliveries.
async fn rounds(bench: &mut Bench, options: &Options, figures: &mut Figures) -> Result<f64> {
    let Options { messages, rounds, concurrency, batch, .. } = *options;
    let (few, many) = ((messages / 2) as u64, (messages * 2) as u64);
    let mut rates: [Vec<f64>; 8] = Default::default();
    for round in 0..=rounds {
        let first = bench.payments.fresh(messages as u64)?;
        let fresh = bench.payments.fresh(messages as u64)?;
        // In turns, so that neither profits from its place.
        let bare_first = round % 2 == 0;
        let mut bare = 0.0;
        if bare_first {
            bare = bench.bare(&fresh, concurrency).await?;
        }
        let single = bench.inbox(&first, concurrency, 1, Ending::Applied, None).await?;
        if !bare_first {
            bare = bench.bare(&fresh, concurrency).await?;
        }
        let fresh = bench.payments.fresh(messages as u64)?;
        let receipts =
            bench.inbox(&fresh, concurrency, 1, Ending::Applied, Some("a receipt")).await?;
        let duplicates = bench.inbox(&first, concurrency, 1, Ending::Duplicate, None).await?;
        let fresh = bench.payments.fresh(few)?;
        let one = bench.inbox(&fresh, 1, 1, Ending::Applied, None).await?;
        let fresh = bench.payments.fresh(many)?;
        let batched = bench.inbox(&fresh, 1, batch, Ending::Applied, None).await?;
        let unsent = bench.payments.unsent(many).collect();
        let plain = bench.booked(unsent, batch, false).await?;
        let unsent = bench.payments.unsent(many).collect();
        let savepoints = bench.booked(unsent, batch, true).await?;
        if round == 0 {
            // The first round warms everything up.
            continue;
        }
        println!(
            "round {round}: bare {bare:.0}/s, single {single:.0}/s, with receipts {receipts:.0}/s, duplicates {duplicates:.0}/s, \
             one worker {one:.0}/s, in batches {batched:.0}/s; bookings in batches {plain:.0}/s, \
             with savepoints {savepoints:.0}/s"
        );
        let measured = [bare, single, duplicates, one, batched, plain, savepoints, receipts];
        for (rates, rate) in rates.iter_mut().zip(measured) {
            rates.push(rate);
        }
    }
    let ratio = |over: usize, under: usize| {
        let each: Vec<f64> =
            rates[over].iter().zip(&rates[under]).map(|(over, under)| over / under).collect();
        Figures::median(&each)
    };
    let names = [
        "bare",
        "single",
        "duplicate",
        "one_worker",
        "batch",
        "bare_batch",
        "savepoints",
        "receipt",
    ];
    for (name, rates) in names.iter().zip(&rates) {
        figures.note(&format!("{name}_per_s"), Figures::median(rates));
    }
    figures.note("single_ratio", ratio(1, 0));
    figures.note("batch_ratio", ratio(4, 3));
    figures.note("duplicate_ratio", ratio(2, 1));
    figures.note("savepoint_ratio", ratio(6, 5));
    figures.note("receipt_ratio", ratio(7, 0));
    Ok(Figures::median(&rates[1]))
}

/// The rate of single deliveries with many operations in the table, in no order of their keys.
async fn filled(bench: &mut Bench, options: &Options) -> Result<f64> {
    bench.fixture.fill_operations(options.rows)?;
    let mut rates = Vec::new();
    for round in 0..=options.rounds {
        let fresh = bench.payments.fresh(options.messages as u64)?;
        let rate = bench.inbox(&fresh, options.concurrency, 1, Ending::Applied, None).await?;
        if round > 0 {
            println!("full table, round {round}: {rate:.0}/s");
            rates.push(rate);
        }
    }
    Ok(Figures::median(&rates))
}
