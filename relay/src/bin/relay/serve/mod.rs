//! `/healthz`, `/readyz` and `/metrics`. They answer whatever database and broker do.

mod figures;
mod health;
mod page;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use relay::telemetry::{self, Gauges};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub(crate) use figures::Figures;
pub(crate) use health::Health;

/// Nobody needs more at once, and a flood must not cost the relay its file descriptors.
const CONNECTIONS: usize = 64;
/// For a whole connection, which carries one request.
const PATIENCE: Duration = Duration::from_secs(15);
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// Histograms collect their samples until somebody looks; nobody may ever do.
const UPKEEP: Duration = Duration::from_secs(5);
/// From a busy relay's floor to an outage of half an hour.
const BUCKETS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 900.0, 1800.0,
];

/// What the pages are made of.
pub(crate) struct Served {
    pub(crate) gauges: Gauges,
    pub(crate) health: Health,
    pub(crate) figures: Figures,
    pub(crate) metrics: PrometheusHandle,
}

/// Starts counting. To be called before anything that counts is made.
pub(crate) fn record() -> Result<PrometheusHandle> {
    let matcher = Matcher::Full(telemetry::COMMIT_TO_CONFIRM.to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(matcher, &BUCKETS)
        .context("the buckets of a histogram are wrong")?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)
        .map_err(|error| anyhow!("metrics cannot be counted: {error}"))?;
    telemetry::describe();
    Ok(handle)
}

/// Answers at `address` until the runtime ends.
pub(crate) async fn serve(address: SocketAddr, served: Arc<Served>) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another address for [server] listen (--listen, RELAY_LISTEN)")
    })?;
    let address = listener.local_addr()?;
    tracing::info!("listening on http://{address} for /healthz, /readyz and /metrics");
    let upkeep = served.metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    tokio::spawn(accept(listener, page::router(served)));
    Ok(())
}

async fn accept(listener: TcpListener, router: axum::Router) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, as a rule; trying again at once would spin.
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Too many: this one is closed unanswered.
        let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
        let router = router.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, answer(stream, router)).await;
            drop(permit);
        });
    }
}

/// One request for each connection: no idle ones to count.
async fn answer(stream: TcpStream, router: axum::Router) {
    let answered = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(16 * 1024)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = answered {
        tracing::debug!(%error, "a request ended without an answer");
    }
}
