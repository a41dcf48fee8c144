//! How long a message takes from its commit to the broker's confirm through a relay, beside publishing
//! it straight from the program that has committed it; and what an idle relay costs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use benches::{
    Committed, Confirms, Direct, Figures, Fixture, Producers, Program, Ready, Statements, Timed,
    messages,
};
use clap::Parser;
use message::MessageId;
use relay::{Relay, Settings};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

/// Commits one message per transaction on an open schedule, in segments: published in turn by a
/// relay and directly.
#[derive(Parser)]
struct Options {
    /// Messages per second.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Messages in one segment.
    #[arg(long, default_value_t = 5_000)]
    messages: usize,
    /// Segments of each kind.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Connections that commit.
    #[arg(long, default_value_t = 8)]
    producers: usize,
    /// Seconds over which the idle relay is observed.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Where to write the figures.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Median, 99th percentile and worst of each segment, in ms.
#[derive(Default)]
struct Segments {
    p50: Vec<f64>,
    p99: Vec<f64>,
    worst: Vec<f64>,
}

/// Confirms may take so long after the last commit.
const PATIENCE: Duration = Duration::from_secs(30);
/// A relay that has just connected is not idle yet.
const SETTLE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let mut figures = Figures::default();
    idle(&options, &mut figures).await?;

    let fixture = Fixture::new().await?;
    // The direct segments commit the same messages, where no relay reads them.
    let unread = Fixture::new().await?;
    let settings = Settings::default();
    let (lanes, floor) = (settings.lanes, settings.poll_busy);
    let confirms = Confirms::default();
    let publisher = Arc::new(Timed::new(fixture.publisher()?, confirms.clone()));
    let relay = Relay::new(fixture.pool()?, publisher).settings(settings).build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let relay = tokio::spawn(async move { relay.run(async { drop(stopped.await) }).await });
    let direct = Arc::new(Direct::open(&fixture.amqp_url, fixture.exchange(), lanes).await?);

    let producers = Producers { count: options.producers, per_s: options.rate };
    let (mut relayed, mut directly) = (Segments::default(), Segments::default());
    let mut reached = f64::INFINITY;
    for round in 0..=options.rounds {
        let batch = messages(options.messages, fixture.exchange());
        let committed = tokio::task::block_in_place(|| {
            producers.commit(&fixture.database_url, &batch, |_, _| ())
        })?;
        let since = Instant::now();
        while confirms.count() < batch.len() {
            ensure!(since.elapsed() < PATIENCE, "{} of {}", confirms.count(), batch.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fixture.expect_in_queue(batch.len()).await?;
        let through_relay = latencies(&committed, &confirms.take())?;

        let batch = messages(options.messages, fixture.exchange());
        let (sender, receiver) = unbounded_channel();
        let (publishing, noted) = (direct.clone(), confirms.clone());
        let publishing =
            tokio::spawn(async move { publishing.publish_each(receiver, &noted).await });
        let committed_directly = tokio::task::block_in_place(|| {
            producers.commit(&unread.database_url, &batch, move |message, _| {
                // The other end is gone only when publishing failed, which is told below.
                let _ = sender.send((message.id, Ready::of(message)));
            })
        })?;
        publishing.await??;
        fixture.expect_in_queue(batch.len()).await?;
        let straight = latencies(&committed_directly, &confirms.take())?;
        if round == 0 {
            // The first round warms both up.
            continue;
        }
        reached = reached.min(committed.per_s).min(committed_directly.per_s);
        println!(
            "round {round}: relay {}, direct {}",
            relayed.add(&through_relay),
            directly.add(&straight)
        );
    }
    // Nobody listens any more when the relay has failed, which it then says.
    let _ = stop.send(());
    relay.await??;
    ensure!(reached > 0.98 * options.rate, "only {reached:.0} commits/s were reached");

    for (name, values) in [
        ("p50_ms", &relayed.p50),
        ("p99_ms", &relayed.p99),
        ("worst_ms", &relayed.worst),
        ("direct_p50_ms", &directly.p50),
        ("direct_p99_ms", &directly.p99),
        ("direct_worst_ms", &directly.worst),
    ] {
        figures.note(name, Figures::median(values));
    }
    figures.note("poll_floor_ms", floor.as_secs_f64() * 1000.0);
    figures.note("messages_per_s", reached);
    figures.note("rounds", options.rounds as f64);
    fixture.remove().await?;
    unread.remove().await?;
    match &options.json {
        Some(path) => figures.write(path),
        None => Ok(()),
    }
}

/// From COMMIT's return to the confirm, in ms. The relay can be faster than the answer to COMMIT;
/// that counts as no time.
fn latencies(committed: &Committed, confirmed: &HashMap<MessageId, Instant>) -> Result<Vec<f64>> {
    let latency = |(id, at): (&MessageId, &Instant)| {
        let confirmed = confirmed.get(id).context("a message was not confirmed")?;
        Ok(confirmed.saturating_duration_since(*at).as_secs_f64() * 1000.0)
    };
    committed.at.iter().map(latency).collect()
}

/// The release program with nothing to do.
async fn idle(options: &Options, figures: &mut Figures) -> Result<()> {
    let fixture = Fixture::new().await?;
    let statements = Statements::before(&fixture.database_url).await?;
    let mut program = Program::start(&statements.database_url, &fixture.amqp_url, &[])?;
    tokio::time::sleep(SETTLE).await;
    ensure!(statements.count() > 0, "the relay has not reached the database");
    program.check()?;
    let (since, processor, count) = (Instant::now(), program.processor_s()?, statements.count());
    tokio::time::sleep(Duration::from_secs(options.idle)).await;
    program.check()?;
    let seconds = since.elapsed().as_secs_f64();
    let busy = program.processor_s()? - processor;
    let asked = (statements.count() - count) as f64;
    figures.note("idle_cpu_percent", 100.0 * busy / seconds);
    figures.note("idle_statements_per_s", asked / seconds);
    figures.note("idle_rss_mib", program.memory()?.now_mib);
    program.stop()?;
    drop(statements);
    fixture.remove().await
}

impl Segments {
    fn add(&mut self, latencies: &[f64]) -> String {
        let (p50, p99) = (Figures::quantile(latencies, 0.5), Figures::quantile(latencies, 0.99));
        self.p50.push(p50);
        self.p99.push(p99);
        self.worst.push(Figures::quantile(latencies, 1.0));
        format!("p50 {p50:.2} ms, p99 {p99:.2} ms")
    }
}
