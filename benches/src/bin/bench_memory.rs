//! How much memory the `relay` program takes while it drains messages of different sizes.

use std::path::PathBuf;

use anyhow::Result;
use benches::{Drain, Figures, Fixture, Variable};
use clap::Parser;

/// Drains a backlog of each size; `rss_mib_<bytes>` is the most the program was resident with.
#[derive(Parser)]
struct Options {
    /// Bytes of a payload and how many such messages, BYTES:COUNT; may be repeated.
    #[arg(long = "size", default_values = ["256:1000000", "2048:200000", "1048576:2000"], value_parser = size)]
    sizes: Vec<(usize, usize)>,
    /// A variable for the relay's environment, NAME=VALUE; may be repeated.
    #[arg(long = "env")]
    variables: Vec<Variable>,
    /// Where to write the figures.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let mut figures = Figures::default();
    for (bytes, count) in options.sizes {
        let fixture = Fixture::new().await?;
        fixture.append(count, bytes)?;
        fixture.tidy()?;
        // A fifth is left over, so that the relay is measured at work to the end.
        let rows = i64::try_from(count - count / 5)?;
        let drain = Drain::run(&fixture, rows, &options.variables).await?;
        figures.note(&format!("rss_mib_{bytes}"), drain.memory.peak_mib);
        figures.note(&format!("per_s_{bytes}"), drain.per_s);
        fixture.remove().await?;
    }
    match &options.json {
        Some(path) => figures.write(path),
        None => Ok(()),
    }
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let parts = text
        .split_once(':')
        .and_then(|(bytes, count)| Some((bytes.parse().ok()?, count.parse().ok()?)));
    parts.ok_or_else(|| "write it as BYTES:COUNT".to_owned())
}
