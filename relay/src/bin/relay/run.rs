use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use db::Db;
use diesel::{PgConnection, SqliteConnection};
use outbox::admin::AdminStore;
use relay::{Backoff, Relay, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};
use transport::Publisher;
use transport::rabbitmq::{RabbitMq, RabbitSettings};

use crate::config::Config;
use crate::database::{self, Kind, address, kind};

pub(crate) fn run(config: &Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        match kind(address(config)?) {
            Kind::Postgres => on::<PgConnection>(config).await,
            Kind::Sqlite => on::<SqliteConnection>(config).await,
        }
    });
    // A call to a frozen database never ends, and dropping the runtime would wait for it.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn on<C: AdminStore>(config: &Config) -> Result<()> {
    let mut signals = Signals::listen()?;
    let settings = settings(config);
    let broker: Arc<dyn Publisher> = Arc::new(RabbitMq::new(&broker(config)?)?);
    let Some(db) = connect::<C>(config, &settings.reconnect, &mut signals).await? else {
        return Ok(());
    };
    let relay = Relay::new(db, broker.clone()).settings(settings).build()?;
    let stopped = relay.run(signals.first_then_exit()).await;
    broker.close().await;
    Ok(stopped?)
}

/// Waits for a database that is still starting; a sidecar often is up first.
async fn connect<C: AdminStore>(
    config: &Config,
    backoff: &Backoff,
    signals: &mut Signals,
) -> Result<Option<Db<C>>> {
    let mut failures = 0;
    loop {
        let error = match Db::connect(address(config)?, database::settings(config)).await {
            Ok(db) => return Ok(Some(db)),
            Err(error) => error,
        };
        if error.needs_operator() {
            return Err(error.into());
        }
        failures += 1;
        tracing::warn!(%error, "database not reachable yet, trying again");
        tokio::select! {
            () = signals.next() => return Ok(None),
            () = tokio::time::sleep(backoff.jittered(failures)) => {}
        }
    }
}

fn broker(config: &Config) -> Result<RabbitSettings> {
    let part = &config.broker;
    let url = part.url.as_ref().context(
        "no broker named; set RELAY_AMQP_URL, --amqp-url or [broker] url in the settings file",
    )?;
    let mut settings = RabbitSettings::new(url.reveal());
    "counterfoil-relay".clone_into(&mut settings.connection_name);
    settings.heartbeat = part.heartbeat.unwrap_or(Duration::from_secs(5));
    settings.publish_timeout = part.publish_timeout.unwrap_or(Duration::from_secs(10));
    settings.connect_timeout = part.connect_timeout.unwrap_or(settings.connect_timeout);
    settings.window = part.window.unwrap_or(settings.window);
    Ok(settings)
}

pub(crate) fn settings(config: &Config) -> Settings {
    let part = config.relay.clone();
    let mut settings = Settings::default();
    set(&mut settings.cursor, part.cursor);
    set(&mut settings.owner, part.owner);
    set(&mut settings.lease, part.lease);
    set(&mut settings.standby_poll, part.standby_poll);
    set(&mut settings.lanes, part.lanes);
    set(&mut settings.chunk_rows, part.chunk_rows);
    set(&mut settings.chunk_bytes, part.chunk_bytes);
    set(&mut settings.chunks_in_flight, part.chunks_in_flight);
    set(&mut settings.poll_busy, part.poll_busy);
    set(&mut settings.poll_idle, part.poll_idle);
    set(&mut settings.poll_holds, part.poll_holds);
    set(&mut settings.hold_backoff.first, part.hold_backoff_first);
    set(&mut settings.hold_backoff.longest, part.hold_backoff_longest);
    set(&mut settings.max_attempts, part.max_attempts);
    set(&mut settings.shutdown_timeout, part.shutdown_timeout);
    settings
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Returns at the first signal, and ends the process at the second.
    async fn first_then_exit(mut self) {
        self.next().await;
        tracing::info!("stopping: settling what is in flight; signal again to exit at once");
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("stopped at once; what was in flight is published again");
            std::process::exit(1);
        });
    }
}
