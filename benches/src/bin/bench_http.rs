//! What `Idempotency-Key` costs: a POST through `Idempotent` beside the same handler without it, one transaction either
//! way, in turn in one run; and what a repeat costs beside a first request.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use benches::{Figures, Fixture, Paid, Payments};
use bytes::Bytes;
use clap::Parser;
use db::{Backend, CallError, Db};
use diesel::sql_types::Integer;
use diesel::{IntoSql, PgConnection, RunQueryDsl};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use inbox::http::{Caller, Failed, Idempotency, Idempotent, Policy, Reply};
use tokio::net::TcpListener;

/// Posts payments to two routes in turn. `first_ratio` is first requests with a key / requests to the same
/// handler without one, `replay_ratio` repeats / first requests. `floor_ratio` is the same handler without a key and with
/// two statements that do nothing / without them: what is left of it whatever the two of a key do.
#[derive(Parser)]
struct Options {
    /// Requests in each measurement: few, because what else the machine does changes within seconds, and that is in
    /// no ratio of measurements that are close together.
    #[arg(long, default_value_t = 400)]
    requests: u64,
    /// Measurements of each.
    #[arg(long, default_value_t = 150)]
    rounds: usize,
    /// Clients, each with a connection of its own.
    #[arg(long, default_value_t = 8)]
    clients: u64,
    /// Where to write the figures.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What either handler does: book the payment and enqueue its event.
fn book(tx: &mut PgConnection, paid: &Paid) -> Result<Reply, Failed> {
    paid.book(tx)?;
    outbox::enqueue(tx, paid)?;
    Ok(Reply::json(StatusCode::CREATED, &serde_json::json!({ "payment": paid.payment }))?)
}

async fn keyed(paid: Idempotent<Paid, PgConnection>) -> Response {
    paid.run(book).await
}

#[derive(Clone)]
struct Shop {
    db: Db<PgConnection>,
    front: Idempotency<PgConnection>,
}

impl axum::extract::FromRef<Shop> for Idempotency<PgConnection> {
    fn from_ref(shop: &Shop) -> Self {
        shop.front.clone()
    }
}

#[derive(Debug, thiserror::Error)]
enum Undone {
    #[error(transparent)]
    Database(#[from] diesel::result::Error),
    #[error("{0}")]
    Handler(Failed),
}

async fn bare(State(shop): State<Shop>, Json(paid): Json<Paid>) -> Response {
    let booked =
        shop.db.call(move |conn| conn.write(|tx| book(tx, &paid).map_err(Undone::Handler)));
    answer(booked.await)
}

/// With a look at nothing before it, and a row of nothing behind it.
async fn empty(State(shop): State<Shop>, Json(paid): Json<Paid>) -> Response {
    let nothing = |tx: &mut PgConnection| {
        diesel::select(1_i32.into_sql::<Integer>()).execute(tx).map(drop).map_err(Undone::Database)
    };
    let booked = shop.db.call(move |conn| {
        conn.write(|tx| {
            nothing(tx)?;
            let reply = book(tx, &paid).map_err(Undone::Handler)?;
            nothing(tx)?;
            Ok(reply)
        })
    });
    answer(booked.await)
}

fn answer(booked: Result<Reply, CallError<Undone>>) -> Response {
    match booked {
        Ok(reply) => reply.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn authenticated(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Caller::new("tenant", "principal"));
    next.run(request).await
}

struct Bench {
    url: String,
    clients: u64,
    replayed: Arc<AtomicU64>,
}

impl Bench {
    /// Posts the payments with these numbers; requests a second.
    async fn post(&self, path: &str, numbers: std::ops::Range<u64>) -> Result<f64> {
        let count = numbers.end - numbers.start;
        let next = Arc::new(AtomicU64::new(numbers.start));
        let start = Instant::now();
        let clients = (0..self.clients).map(|_| {
            let (next, url) = (next.clone(), format!("{}{path}", self.url));
            let replayed = self.replayed.clone();
            tokio::spawn(async move {
                let client: Client<HttpConnector, Full<Bytes>> =
                    Client::builder(TokioExecutor::new()).build_http();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return anyhow::Ok(());
                    }
                    let body = serde_json::to_vec(&Paid::numbered(number))?;
                    let request = Request::post(&url)
                        .header("content-type", "application/json")
                        .header("idempotency-key", format!("\"pay-{number}\""))
                        .body(Full::new(Bytes::from(body)))?;
                    let response = client.request(request).await?;
                    ensure!(response.status() == 201, "answered with {}", response.status());
                    if response.headers().contains_key("idempotency-replayed") {
                        replayed.fetch_add(1, Ordering::Relaxed);
                    }
                    response.into_body().collect().await?;
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await??;
        }
        Ok(count as f64 / start.elapsed().as_secs_f64())
    }

    /// How many of the replies since the last call were those of earlier requests.
    fn replayed(&self) -> u64 {
        self.replayed.swap(0, Ordering::Relaxed)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let fixture = Fixture::new().await?;
    // The tables, and accounts for the payments.
    let _payments = Payments::on(&fixture).await?;
    let pool = u32::try_from(options.clients).context("too many clients")?;
    let db = Db::open(&fixture.database_url, db::Settings::default().with_pool_size(pool))?;
    let policy = Policy::new("bench", "https://bench.example/idempotency");
    let front = Idempotency::new(policy, db.clone())?;
    let router = Router::new()
        .route("/keyed", post(keyed))
        .route("/bare", post(bare))
        .route("/empty", post(empty))
        .layer(middleware::from_fn(authenticated))
        .with_state(Shop { db, front });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let bench = Bench { url, clients: options.clients, replayed: Arc::default() };
    let figures = rounds(&bench, &options, &fixture).await?;
    if let Some(path) = &options.json {
        figures.write(path)?;
    }
    server.abort();
    fixture.remove().await
}

async fn rounds(bench: &Bench, options: &Options, fixture: &Fixture) -> Result<Figures> {
    let Options { requests, rounds, .. } = *options;
    let mut rates: [Vec<f64>; 4] = Default::default();
    let mut from = 0;
    // Once: after a checkpoint every page that is touched first is logged whole, and after an ANALYZE every connection
    // plans anew. No server does either before every few hundred requests.
    fixture.tidy()?;
    for round in 0..=rounds {
        let numbers = [0, 1, 2].map(|nth| from + nth * requests..from + (nth + 1) * requests);
        from += 3 * requests;
        let [mut bare, mut empty, mut first] = [0.0; 3];
        // Who goes first changes from round to round.
        for turn in [round, round + 1, round + 2].map(|turn| turn % 3) {
            let (path, rate) =
                [("/bare", &mut bare), ("/empty", &mut empty), ("/keyed", &mut first)]
                    .into_iter()
                    .nth(turn)
                    .context("three of them")?;
            *rate = bench.post(path, numbers[turn].clone()).await?;
        }
        ensure!(bench.replayed() == 0, "a first request got an earlier reply");
        let [.., keyeds] = numbers;
        let replay = bench.post("/keyed", keyeds).await?;
        ensure!(bench.replayed() == requests, "a repeat ran its handler");
        if round == 0 {
            // The first round warms everything up.
            continue;
        }
        println!(
            "round {round}: bare {bare:.0}/s, empty {empty:.0}/s, first {first:.0}/s, replay {replay:.0}/s"
        );
        for (rates, rate) in rates.iter_mut().zip([bare, first, replay, empty]) {
            rates.push(rate);
        }
    }
    let ratio = |over: usize, under: usize| {
        let each: Vec<f64> =
            rates[over].iter().zip(&rates[under]).map(|(over, under)| over / under).collect();
        Figures::median(&each)
    };
    let mut figures = Figures::default();
    for (name, rates) in ["bare", "first", "replay", "empty"].iter().zip(&rates) {
        figures.note(&format!("{name}_per_s"), Figures::median(rates));
    }
    figures.note("first_ratio", ratio(1, 0));
    figures.note("replay_ratio", ratio(2, 1));
    figures.note("floor_ratio", ratio(3, 0));
    Ok(figures)
}
