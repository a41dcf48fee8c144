use anyhow::{Context, Result, anyhow};
use tracing_subscriber::EnvFilter;

use crate::config::Log;

pub(crate) fn init(log: &Log) -> Result<()> {
    let text = log.filter.as_deref().unwrap_or("info");
    // The AMQP client logs returned messages with their payload, and at finer levels the login:
    // whoever wants that has to name it. What it says of lost
    // connections the transport says too, once.
    let safe = if text.contains("lapin") { text.to_owned() } else { format!("{text},lapin=off") };
    let filter =
        EnvFilter::try_new(safe).with_context(|| format!("log filter {text:?} cannot be read"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started =
        if log.json.unwrap_or(false) { builder.json().try_init() } else { builder.try_init() };
    started.map_err(|error| anyhow!("logging cannot start: {error}"))
}
