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

/// A provider.
#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    books: Arc<Mutex<Books>>,
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
        let provider = Self { address, books };
        let app =
            Router::new().route("/{key}", get(ask).post(perform)).with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(provider)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
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

async fn perform(State(provider): State<Provider>, Path(key): Path<String>) -> Response {
    let mut books = provider.books();
    books.requests += 1;
    let request = books.requests;
    if request.is_multiple_of(7) {
        books.broken += 1;
        return broken();
    }
    let honours_keys = books.honours_keys;
    let done = books.done.entry(key.clone()).or_default();
    if *done == 0 || !honours_keys {
        *done += 1;
    }
    if request.is_multiple_of(4) {
        books.broken += 1;
        return broken();
    }
    format!("receipt for {key}").into_response()
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
