//! Whom the shop pays by, and whom it ships with: an HTTP server each that does what it is asked and then now and
//! then breaks off its reply, or breaks it off before it has done anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A provider.
#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    books: Arc<Mutex<Books>>,
    silent: watch::Sender<bool>,
}

#[derive(Default)]
struct Books {
    honours_keys: bool,
    requests: usize,
    broken: usize,
    /// How often it was done, by key.
    done: BTreeMap<String, usize>,
}

impl Provider {
    pub(crate) async fn start(honours_keys: bool) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let books = Arc::new(Mutex::new(Books { honours_keys, ..Books::default() }));
        let provider = Self { address, books, silent: watch::Sender::new(false) };
        let app =
            Router::new().route("/{key}", get(ask).post(perform)).with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(provider)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it does what it is asked and keeps its replies to itself.
    pub(crate) fn be_silent(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.books().requests
    }

    /// Replies that broke off.
    pub(crate) fn broken(&self) -> usize {
        self.books().broken
    }

    /// How often each key was performed.
    pub(crate) fn done(&self) -> Vec<usize> {
        self.books().done.values().copied().collect()
    }
}

impl Books {
    fn perform(&mut self, key: String) -> Response {
        self.requests += 1;
        if self.requests.is_multiple_of(7) {
            self.broken += 1;
            return broken();
        }
        let receipt = format!("receipt for {key}");
        let done = self.done.entry(key).or_default();
        if *done == 0 || !self.honours_keys {
            *done += 1;
        }
        if self.requests.is_multiple_of(4) {
            self.broken += 1;
            return broken();
        }
        receipt.into_response()
    }
}

async fn perform(State(provider): State<Provider>, Path(key): Path<String>) -> Response {
    let reply = provider.books().perform(key);
    // No error: the provider that sends holds on to its own sender.
    let _ = provider.silent.subscribe().wait_for(|silent| !silent).await;
    reply
}

async fn ask(State(provider): State<Provider>, Path(key): Path<String>) -> Response {
    if provider.books().done.contains_key(&key) {
        format!("receipt for {key}").into_response()
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}

/// The connection ends in the middle of the reply.
fn broken() -> Response {
    let error = Err::<Bytes, _>(std::io::Error::other("the line went dead"));
    Body::from_stream(futures_util::stream::iter([error])).into_response()
}
