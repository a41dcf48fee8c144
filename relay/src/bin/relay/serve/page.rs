use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

use super::Served;

/// Nothing here reads a body, so none is ever taken in.
pub(super) fn router(served: Arc<Served>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .with_state(served)
}

async fn healthz(State(served): State<Arc<Served>>) -> Response {
    let (live, body) = served.health.live();
    told(live, body)
}

async fn readyz(State(served): State<Arc<Served>>) -> Response {
    let figures = served.figures.known();
    let (ready, body) = served.health.ready(figures.map(|(figures, _)| figures));
    told(ready, body)
}

async fn metrics(State(served): State<Arc<Served>>) -> Response {
    if let Some(report) = served.health.report() {
        served.gauges.relay(&report);
    }
    if let Some((figures, age)) = served.figures.fresh().await {
        served.gauges.database(&figures, age);
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, served.metrics.render()).into_response()
}

async fn unknown() -> Response {
    (StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n").into_response()
}

fn told(good: bool, body: Value) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}
