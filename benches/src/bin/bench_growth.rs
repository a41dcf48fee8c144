//! Whether a relay drains as fast, and in as little memory, when much has gathered around it: a backlog
//! of millions, transactions that were open before it was written, a log of published rows.

use std::path::PathBuf;

use anyhow::Result;
use benches::{Drain, Figures, Fixture, OpenTransactions, PAYLOAD_BYTES, Variable};
use clap::Parser;

/// Drains equal stretches with the `relay` program, each case in turn with the baseline; the ratios
/// are case / baseline.
#[derive(Parser)]
struct Options {
    /// Rows of the big backlog, and of the published rows.
    #[arg(long, default_value_t = 5_000_000)]
    rows: usize,
    /// Rows of the baseline's backlog.
    #[arg(long, default_value_t = 100_000)]
    baseline: usize,
    /// Rows of one stretch: so many fewer than the baseline's backlog that the last of them is read
    /// well before its end.
    #[arg(long, default_value_t = 80_000)]
    stretch: i64,
    /// Rows drained in one go after the big backlog was written, for the memory.
    #[arg(long, default_value_t = 500_000)]
    endurance: i64,
    /// Measurements of each case.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A variable for the relay's environment, NAME=VALUE; may be repeated.
    #[arg(long = "env")]
    variables: Vec<Variable>,
    /// Where to write the figures.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The measurements of one case.
#[derive(Default)]
struct Case {
    per_s: Vec<f64>,
    ratios: Vec<f64>,
    peak_mib: f64,
}

struct Bench {
    options: Options,
    small: Fixture,
    baseline: Case,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let mut bench = Bench { options, small: Fixture::new().await?, baseline: Case::default() };
    bench.baseline().await?;
    // The first drain warms everything up.
    bench.baseline.per_s.clear();

    let open = bench.open_transactions().await?;
    let big = Fixture::new().await?;
    println!("writing {} rows", bench.options.rows);
    big.append(bench.options.rows, PAYLOAD_BYTES)?;
    big.tidy()?;
    let backlog = bench.backlog(&big).await?;
    big.pass_everything()?;
    let published = bench.published(&big).await?;
    big.remove().await?;

    let Bench { options, small, baseline } = bench;
    small.remove().await?;
    let mut figures = Figures::default();
    let mut most: f64 = 0.0;
    for (name, case) in [
        ("baseline", &baseline),
        ("backlog", &backlog),
        ("open_transactions", &open),
        ("published", &published),
    ] {
        figures.note(&format!("{name}_per_s"), Figures::median(&case.per_s));
        figures.note(&format!("{name}_rss_mib"), case.peak_mib);
        if !case.ratios.is_empty() {
            figures.note(&format!("{name}_ratio"), Figures::median(&case.ratios));
        }
        most = most.max(case.peak_mib);
    }
    figures.note("max_rss_mib", most);
    figures.note("rows", options.rows as f64);
    figures.note("stretch", options.stretch as f64);
    figures.note("rounds", options.rounds as f64);
    match &options.json {
        Some(path) => figures.write(path),
        None => Ok(()),
    }
}

impl Bench {
    /// A backlog of ordinary size and nothing else.
    async fn baseline(&mut self) -> Result<f64> {
        self.small.empty_log()?;
        self.small.fill(self.options.baseline)?;
        let drain = Drain::run(&self.small, self.options.stretch, &self.options.variables).await?;
        self.baseline.add(drain);
        Ok(drain.per_s)
    }

    /// The baseline's backlog, written and drained while the transactions stay open. Their database is
    /// another one, and they are closed while the baseline is measured: an open writer shows in the
    /// snapshots of the whole cluster.
    async fn open_transactions(&mut self) -> Result<Case> {
        let fixture = Fixture::new().await?;
        let mut case = Case::default();
        for round in 1..=self.options.rounds {
            let baseline = self.baseline().await?;
            fixture.empty_log()?;
            let open = OpenTransactions::begin(&fixture)?;
            fixture.fill(self.options.baseline)?;
            let drain = Drain::run(&fixture, self.options.stretch, &self.options.variables).await?;
            drop(open);
            case.compare("open transactions", round, drain, baseline);
        }
        fixture.remove().await?;
        Ok(case)
    }

    /// Stretch after stretch of one big backlog.
    async fn backlog(&mut self, big: &Fixture) -> Result<Case> {
        let mut case = Case::default();
        let long = Drain::run(big, self.options.endurance, &self.options.variables).await?;
        println!("{} rows in one go: {long:?}", self.options.endurance);
        case.add(long);
        case.per_s.clear();
        for round in 1..=self.options.rounds {
            let baseline = self.baseline().await?;
            big.tidy()?;
            let drain = Drain::run(big, self.options.stretch, &self.options.variables).await?;
            case.compare("backlog", round, drain, baseline);
        }
        Ok(case)
    }

    /// The baseline's backlog on top of published rows that nobody has purged.
    async fn published(&mut self, big: &Fixture) -> Result<Case> {
        let mut case = Case::default();
        for round in 1..=self.options.rounds {
            let baseline = self.baseline().await?;
            big.fill(self.options.baseline)?;
            let drain = Drain::run(big, self.options.stretch, &self.options.variables).await?;
            case.compare("published", round, drain, baseline);
        }
        Ok(case)
    }
}

impl Case {
    fn add(&mut self, drain: Drain) {
        self.per_s.push(drain.per_s);
        self.peak_mib = self.peak_mib.max(drain.memory.peak_mib);
    }

    fn compare(&mut self, name: &str, round: usize, drain: Drain, baseline: f64) {
        let ratio = drain.per_s / baseline;
        println!(
            "{name} {round}: {:.0}/s, baseline {baseline:.0}/s, ratio {ratio:.3}, memory {:.1} MiB",
            drain.per_s, drain.memory.peak_mib
        );
        self.add(drain);
        self.ratios.push(ratio);
    }
}
