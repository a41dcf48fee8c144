//! How fast a relay drains an outbox, beside publishing the same messages straight through lapin at
//! its best, in turn in one run.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use benches::{Direct, Figures, Fixture, Ready};
use clap::Parser;
use relay::{Relay, Settings};

/// Drains an outbox and publishes directly, in turn; `ratio` is relay / direct.
#[derive(Parser)]
struct Options {
    /// Messages in each measurement.
    #[arg(long, default_value_t = 100_000)]
    messages: usize,
    /// Measurements of each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Lanes of both.
    #[arg(long, default_value_t = 4)]
    lanes: usize,
    /// Messages of the direct publisher per batch and lane.
    #[arg(long, default_value_t = 1_000)]
    batch: usize,
    /// Where to write the figures.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let fixture = Fixture::new().await?;
    let messages = Ready::messages(options.messages);
    let direct = Direct::open(&fixture.amqp_url, fixture.exchange(), options.lanes).await?;
    let (mut relayed, mut published, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=options.rounds {
        fixture.fill(options.messages)?;
        let mut settings = Settings::default();
        settings.lanes = options.lanes;
        let relay = Relay::new(fixture.pool()?, fixture.publisher()?).settings(settings).build()?;
        let start = Instant::now();
        let drained = relay.run_once().await?;
        let relay_per_s = options.messages as f64 / start.elapsed().as_secs_f64();
        ensure!(drained.confirmed == options.messages as u64, "{drained:?}");
        fixture.expect_in_queue(options.messages).await?;

        let start = Instant::now();
        direct.publish(&messages, options.batch).await?;
        let direct_per_s = options.messages as f64 / start.elapsed().as_secs_f64();
        fixture.expect_in_queue(options.messages).await?;
        if round == 0 {
            // The first round warms both up.
            continue;
        }
        println!("round {round}: relay {relay_per_s:.0}/s, direct {direct_per_s:.0}/s");
        ratios.push(relay_per_s / direct_per_s);
        relayed.push(relay_per_s);
        published.push(direct_per_s);
    }
    let mut figures = Figures::default();
    figures.note("relay_per_s", Figures::median(&relayed));
    figures.note("direct_per_s", Figures::median(&published));
    figures.note("ratio", Figures::median(&ratios));
    figures.note("messages", options.messages as f64);
    figures.note("rounds", options.rounds as f64);
    if let Some(path) = &options.json {
        figures.write(path)?;
    }
    fixture.remove().await
}
