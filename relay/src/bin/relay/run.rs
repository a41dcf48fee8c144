use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use db::Db;
use diesel::{PgConnection, SqliteConnection};
use outbox::admin::AdminStore;
use relay::telemetry::Gauges;
use relay::{Backoff, Relay, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};
use transport::Publisher;
use transport::rabbitmq::RabbitMq;

use crate::broker::broker;
use crate::config::Config;
use crate::database::{self, Kind, address, kind};
use crate::serve::{self, Figures, Health, Served};

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
    // First of all, so that it answers while the database is waited for.
    let served = serve::<C>(config, &settings).await?;
    let broker: Arc<dyn Publisher> = Arc::new(RabbitMq::new(&broker(config)?)?);
    let starting = |why: String| {
        if let Some(served) = &served {
            served.health.starting(why);
        }
    };
    let connected = connect::<C>(config, &settings.reconnect, &mut signals, starting);
    let Some(db) = connected.await? else {
        return Ok(());
    };
    let relay = Relay::new(db, broker.clone()).settings(settings).build()?;
    if let Some(served) = &served {
        served.health.started(relay.status());
    }
    let stopped = relay.run(signals.first_then_exit()).await;
    broker.close().await;
    Ok(stopped?)
}

/// What is stuck for less is the ordinary course of an outage: timeouts, and connecting anew.
const STUCK_AFTER: Duration = Duration::from_secs(60);

async fn serve<C: AdminStore>(config: &Config, settings: &Settings) -> Result<Option<Arc<Served>>> {
    let Some(address) = config.server.listen else { return Ok(None) };
    let stuck_after = config.server.stuck_after.unwrap_or(STUCK_AFTER.max(settings.lease * 2));
    if stuck_after <= settings.lease {
        bail!(
            "stuck_after = {stuck_after:?} cannot be used: a relay that waits for the end of a lease would look stuck; make it more than the lease ({:?})",
            settings.lease
        );
    }
    let served = Arc::new(Served {
        gauges: Gauges::of(&settings.cursor),
        health: Health::new(settings.cursor.clone(), stuck_after),
        figures: Figures::of::<C>(config, &settings.cursor)?,
        metrics: serve::record()?,
    });
    serve::serve(address, served.clone()).await?;
    Ok(Some(served))
}

/// Waits for a database that is still starting; a sidecar often is up first.
async fn connect<C: AdminStore>(
    config: &Config,
    backoff: &Backoff,
    signals: &mut Signals,
    failed: impl Fn(String),
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
        failed(error.to_string());
        tracing::warn!(%error, "database not reachable yet, trying again");
        tokio::select! {
            () = signals.next() => return Ok(None),
            () = tokio::time::sleep(backoff.jittered(failures)) => {}
        }
    }
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
    set(&mut settings.wake, part.wake.map(Into::into));
    set(&mut settings.poll_holds, part.poll_holds);
    set(&mut settings.hold_backoff.first, part.hold_backoff_first);
    set(&mut settings.hold_backoff.longest, part.hold_backoff_longest);
    set(&mut settings.max_attempts, part.max_attempts);
    set(&mut settings.dead_key, part.dead_key.map(Into::into));
    set(&mut settings.key_in_flight, part.key_in_flight);
    set(&mut settings.refused_share, part.refused_share);
    set(&mut settings.refused_sample, part.refused_sample);
    set(&mut settings.circuit_pause.first, part.circuit_pause_first);
    set(&mut settings.circuit_pause.longest, part.circuit_pause_longest);
    set(&mut settings.max_holds, part.max_holds);
    set(&mut settings.stall_timeout, part.stall_timeout);
    settings.retention = part.retention;
    set(&mut settings.purge_rows, part.purge_rows);
    set(&mut settings.shutdown_timeout, part.shutdown_timeout);
    settings
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
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
    pub(crate) async fn first_then_exit(mut self) {
        self.next().await;
        tracing::info!("stopping: settling what is in flight; signal again to exit at once");
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("stopped at once; what was in flight is published again");
            std::process::exit(1);
        });
    }
}
