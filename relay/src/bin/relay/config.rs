use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

use crate::broker::{Broker, BrokerOverrides};
use crate::database::{Database, DatabaseFlags, place};

/// What the file can say; `deploy/relay.toml` explains each setting.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) database: Database,
    pub(crate) broker: Broker,
    pub(crate) relay: RelayPart,
    pub(crate) server: Server,
    pub(crate) log: Log,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RelayPart {
    pub(crate) cursor: Option<String>,
    pub(crate) owner: Option<String>,
    #[serde(with = "humantime_serde")]
    pub(crate) lease: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) standby_poll: Option<Duration>,
    pub(crate) lanes: Option<usize>,
    pub(crate) chunk_rows: Option<u32>,
    pub(crate) chunk_bytes: Option<u64>,
    pub(crate) chunks_in_flight: Option<usize>,
    #[serde(with = "humantime_serde")]
    pub(crate) poll_busy: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) poll_idle: Option<Duration>,
    pub(crate) wake: Option<Wake>,
    #[serde(with = "humantime_serde")]
    pub(crate) poll_holds: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) hold_backoff_first: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) hold_backoff_longest: Option<Duration>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) dead_key: Option<DeadKey>,
    pub(crate) key_in_flight: Option<usize>,
    pub(crate) refused_share: Option<f64>,
    pub(crate) refused_sample: Option<u64>,
    #[serde(with = "humantime_serde")]
    pub(crate) circuit_pause_first: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) circuit_pause_longest: Option<Duration>,
    pub(crate) max_holds: Option<u64>,
    #[serde(with = "humantime_serde")]
    pub(crate) stall_timeout: Option<Duration>,
    #[serde(with = "humantime_serde")]
    pub(crate) retention: Option<Duration>,
    pub(crate) purge_rows: Option<u32>,
    #[serde(with = "humantime_serde")]
    pub(crate) shutdown_timeout: Option<Duration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    pub(crate) listen: Option<SocketAddr>,
    #[serde(with = "humantime_serde")]
    pub(crate) stuck_after: Option<Duration>,
}

/// [`relay::DeadKey`] as the file says it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeadKey {
    Block,
    Skip,
}

impl From<DeadKey> for relay::DeadKey {
    fn from(named: DeadKey) -> Self {
        match named {
            DeadKey::Block => Self::Block,
            DeadKey::Skip => Self::Skip,
        }
    }
}

/// [`relay::Wake`] as the file says it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wake {
    Poll,
    Notify,
}

impl From<Wake> for relay::Wake {
    fn from(named: Wake) -> Self {
        match named {
            Wake::Poll => Self::Poll,
            Wake::Notify => Self::Notify,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    pub(crate) filter: Option<String>,
    pub(crate) json: Option<bool>,
}

/// Text that is never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Flags, each with its environment variable.
#[derive(Args, Clone, Debug)]
pub(crate) struct Overrides {
    /// Settings file (TOML).
    #[arg(long, global = true, env = "RELAY_CONFIG")]
    config: Option<PathBuf>,
    /// Database: postgres://user:password@host:port/name, or a path for SQLite.
    #[arg(long, global = true, env = "RELAY_DATABASE_URL", hide_env_values = true, value_parser = secret)]
    database_url: Option<Secret>,
    /// File that holds the database address.
    #[arg(long, global = true, env = "RELAY_DATABASE_URL_FILE")]
    database_url_file: Option<PathBuf>,
    #[command(flatten)]
    broker: BrokerOverrides,
    #[command(flatten)]
    database: DatabaseFlags,
    /// Which cursor to move [default: relay].
    #[arg(long, global = true, env = "RELAY_CURSOR")]
    cursor: Option<String>,
    /// How long the lease lasts without renewal, as in 20s [default: 20s].
    #[arg(long, global = true, env = "RELAY_LEASE", value_parser = duration)]
    lease: Option<Duration>,
    /// Channels to publish on [default: 4].
    #[arg(long, global = true, env = "RELAY_LANES")]
    lanes: Option<usize>,
    /// Most rows read in one step [default: 1000].
    #[arg(long, global = true, env = "RELAY_CHUNK_ROWS")]
    chunk_rows: Option<u32>,
    /// Where to answer /healthz, /readyz and /metrics, as in 127.0.0.1:9464 [default: nowhere].
    #[arg(long, global = true, env = "RELAY_LISTEN")]
    listen: Option<SocketAddr>,
    /// What to log, as in info or relay=debug,warn [default: info].
    #[arg(long, global = true, env = "RELAY_LOG")]
    log: Option<String>,
    /// Log in JSON.
    #[arg(long, global = true, env = "RELAY_LOG_JSON", num_args = 0..=1, default_missing_value = "true")]
    log_json: Option<bool>,
}

pub(crate) fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::from(text))
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let json = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
    humantime_serde::deserialize(json)
        .map_err(|error| format!("{error}; write it as 20s, 500ms or 30d"))
}

/// The file's settings with the flags' and the environment's over them.
pub(crate) fn load(overrides: &Overrides) -> Result<Config> {
    let mut config = match &overrides.config {
        Some(path) => read(path)?,
        None => Config::default(),
    };
    let Overrides {
        config: _,
        database_url,
        database_url_file,
        broker,
        database,
        cursor,
        lease,
        lanes,
        chunk_rows,
        listen,
        log,
        log_json,
    } = overrides.clone();
    let Database { url, url_file, .. } = &mut config.database;
    address(url, url_file.take(), database_url, database_url_file)?;
    broker.over(&mut config.broker)?;
    database.place(&mut config.database);
    place(&mut config.relay.cursor, cursor);
    place(&mut config.relay.lease, lease);
    place(&mut config.relay.lanes, lanes);
    place(&mut config.relay.chunk_rows, chunk_rows);
    place(&mut config.server.listen, listen);
    place(&mut config.log.filter, log);
    place(&mut config.log.json, log_json);
    Ok(config)
}

/// An address: what flags and environment say goes before the settings file, and of two on one level
/// the address itself goes before the file that holds it.
pub(crate) fn address(
    slot: &mut Option<Secret>,
    file: Option<PathBuf>,
    given: Option<Secret>,
    given_file: Option<PathBuf>,
) -> Result<()> {
    *slot = match (given, given_file, slot.take(), file) {
        (Some(given), ..) => Some(given),
        (None, Some(path), ..) => Some(read_secret(&path)?),
        (None, None, Some(configured), _) => Some(configured),
        (None, None, None, Some(path)) => Some(read_secret(&path)?),
        (None, None, None, None) => None,
    };
    Ok(())
}

fn read(path: &Path) -> Result<Config> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the settings file {}", path.display()))?;
    match toml::from_str(&text) {
        Ok(config) => Ok(config),
        Err(error) => {
            // Not the error's own text: it quotes the line, and the line may hold a password.
            let start = error.span().map_or(0, |span| span.start);
            let line = text.get(..start).unwrap_or_default().lines().count().max(1);
            bail!("{} near line {line}: {}", path.display(), without_quotes(error.message()))
        }
    }
}

/// The decoder quotes values of a wrong type, and an address in the wrong place is one.
fn without_quotes(message: &str) -> String {
    let parts = message.split('"').enumerate();
    parts.map(|(i, part)| if i % 2 == 0 { part } else { "\"…\"" }).collect()
}

fn read_secret(path: &Path) -> Result<Secret> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = text.trim();
    if text.is_empty() {
        bail!("{} is empty; it should hold the address", path.display());
    }
    Ok(Secret::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_example_says_the_defaults() {
        let text = include_str!("../../../../deploy/relay.toml");
        let config: Config = toml::from_str(text).expect("valid");
        assert_eq!(crate::run::settings(&config).lease, relay::Settings::default().lease);
        // Every setting is in the example, commented out or not.
        for name in [
            "pool_size",
            "transaction_pooler",
            "ca_file",
            "client_cert_file",
            "client_key_file",
            "allow_plaintext",
            "heartbeat",
            "window",
            "hold_backoff_first",
            "poll_holds",
            "wake",
            "shutdown_timeout",
            "listen",
            "stuck_after",
            "filter",
        ] {
            assert!(text.contains(name), "{name}");
        }
    }

    #[test]
    fn a_typo_is_named_and_no_secret_is_quoted() {
        let dir = std::env::temp_dir().join(format!("relay-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directory");
        for (text, expected) in [
            ("[relay]\nleese = '20s'\n", "leese"),
            ("[broker]\nurl = \"amqp://u:canary@h\n", "line 2"),
            ("[relay]\nlease = 'soon'\n", "line 2"),
            ("database = 'postgres://u:canary@h/db'\n", "line 1"),
        ] {
            let path = dir.join("relay.toml");
            std::fs::write(&path, text).expect("written");
            let error = format!("{:#}", read(&path).expect_err("refused"));
            assert!(error.contains(expected) && !error.contains("canary"), "{error}");
        }
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn the_environment_goes_before_the_file_and_an_address_before_a_path() {
        let secret = |text: &str| Some(Secret::from(text));
        let missing = || Some(PathBuf::from("/nonexistent"));
        let mut slot = secret("file");
        address(&mut slot, missing(), secret("flag"), missing()).expect("no path is read");
        assert_eq!(slot.as_ref().map(Secret::reveal), Some("flag"));
        let mut slot = secret("file");
        address(&mut slot, missing(), None, None).expect("no path is read");
        assert_eq!(slot.as_ref().map(Secret::reveal), Some("file"));
        assert!(address(&mut slot, None, None, missing()).is_err(), "a named path must be there");
    }

    #[test]
    fn a_secret_has_no_debug_form() {
        assert_eq!(format!("{:?}", Secret::from("canary")), "(hidden)");
    }
}
