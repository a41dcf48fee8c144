//! A shop that takes orders over HTTP, on a real socket, and a client.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use db::Db;
use diesel::connection::LoadConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use inbox::http::{Caller, Failed, HttpConnection, Idempotency, Idempotent, Policy, Reply};
use message::Event;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::inbox::Store;

/// A database a shop can live in.
pub trait Shopping:
    Store + HttpConnection + LoadConnection<Backend: outbox::OutboxBackend>
{
    /// Counts what `query` selects.
    fn count(conn: &mut Self, query: &str) -> i64;

    /// Runs a statement.
    ///
    /// # Errors
    /// What the database says.
    fn execute(conn: &mut Self, statement: &str) -> QueryResult<usize>;

    /// Has PostgreSQL say that the transaction lost against another one.
    ///
    /// # Errors
    /// That.
    fn raise_serialization_failure(tx: &mut Self) -> QueryResult<usize> {
        Self::execute(tx, "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
    }
}

macro_rules! shopping {
    ($connection:ty) => {
        impl Shopping for $connection {
            fn count(conn: &mut Self, query: &str) -> i64 {
                let count = format!("(SELECT count(*) FROM {query})");
                diesel::select(sql::<BigInt>(&count)).get_result(conn).expect("counts")
            }

            fn execute(conn: &mut Self, statement: &str) -> QueryResult<usize> {
                diesel::sql_query(statement).execute(conn)
            }
        }
    };
}
shopping!(PgConnection);
shopping!(SqliteConnection);

/// What is ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What; the account in the ledger.
    pub item: String,
    /// How much.
    pub cents: i64,
}

/// An order was placed.
#[derive(Serialize)]
pub struct Placed {
    number: String,
}

impl Event for Placed {
    const KIND: &'static str = "order.placed";

    fn operation(&self) -> Cow<'_, str> {
        (&self.number).into()
    }
}

/// Books the order and enqueues its event; the reply has a number that no other one has.
///
/// # Errors
/// When the database refuses.
pub fn place<C: Shopping>(tx: &mut C, order: &Order) -> Result<Reply, Failed> {
    let number = uuid::Uuid::new_v4().to_string();
    C::credit(tx, &order.item, order.cents)?;
    outbox::enqueue(tx, &Placed { number: number.clone() })?;
    let reply = Reply::json(StatusCode::CREATED, &serde_json::json!({ "number": number }))?;
    Ok(reply.with_header(axum::http::header::LOCATION, format!("/orders/{number}").parse()?))
}

/// A policy published at an address that the tests know.
#[must_use]
pub fn policy() -> Policy {
    // Series of one process are told apart by the policy's name.
    Policy::new(format!("p{}", uuid::Uuid::new_v4().simple()), POLICY)
}

/// Where it is published.
pub const POLICY: &str = "https://shop.example/idempotency";

/// A running server. Dropping it stops it.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Requests that reached a handler.
    pub runs: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
    client: Client<HttpConnector, Full<bytes::Bytes>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: axum::http::HeaderMap,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// Whether it is marked as the reply of an earlier request.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        self.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
    }

    /// A header's value, empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// Checks that it is a problem of the policy.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, name: &str) {
        let shown = format!("{self:?}");
        assert_eq!(self.status, status, "{shown}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{shown}");
        let body: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(body["type"], format!("{POLICY}#{name}"), "{shown}");
        assert_eq!(body["status"], status, "{shown}");
        assert!(self.header("link").contains(POLICY), "{shown}");
        assert!(!self.is_replayed(), "{shown}");
    }
}

impl Server {
    /// A shop whose handlers are transactions with `handler` in them, on every route and method.
    pub async fn start<C: Shopping>(
        policy: Policy,
        db: Db<C>,
        handler: impl Fn(&mut C, &Order) -> Result<Reply, Failed> + Send + Sync + 'static,
    ) -> Self {
        let front = Idempotency::new(policy, db).expect("a good policy");
        let (runs, handler) = (Arc::new(AtomicUsize::new(0)), Arc::new(handler));
        let counted = runs.clone();
        let take = move |order: Idempotent<Option<Order>, C>| {
            let (handler, counted) = (handler.clone(), counted.clone());
            async move {
                order
                    .run(move |tx, order| {
                        counted.fetch_add(1, Ordering::SeqCst);
                        let nothing = Order { item: "nothing".to_owned(), cents: 0 };
                        handler(tx, order.as_ref().unwrap_or(&nothing))
                    })
                    .await
            }
        };
        let router = Router::new()
            .route("/orders", any(take.clone()))
            .route("/refunds", any(take.clone()))
            .route("/orders/{id}/pay", post(take.clone()))
            .nest("/accounts/{account}", Router::new().route("/withdraw", post(take)))
            .with_state(front);
        Self::serve(router, runs).await
    }

    /// A shop whose handler is async and runs within the layer.
    pub async fn layered<C: Shopping, F: Future<Output = Response> + Send + 'static>(
        front: &Idempotency<C>,
        handler: impl Fn(usize) -> F + Clone + Send + Sync + 'static,
    ) -> Self {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let take = move || handler(counted.fetch_add(1, Ordering::SeqCst) + 1);
        let router = Router::new()
            .route("/orders", any(take.clone()))
            .route("/refunds", any(take.clone()))
            .route("/orders/{id}/pay", post(take));
        Self::serve(router.layer(front.layer()), runs).await
    }

    /// Serves routes of a test's own, to callers that are named.
    pub async fn serve(router: Router, runs: Arc<AtomicUsize>) -> Self {
        let router = router.layer(middleware::from_fn(authenticated));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serves");
        });
        Self { address, runs, task, client: client() }
    }

    /// How often a handler was begun.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Sends a request.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Answer {
        send(&self.client, self.address, method, path, headers, body.into()).await
    }

    /// Posts an order of a pen under a key, given as the header's value.
    pub async fn order(&self, key: &str, cents: i64) -> Answer {
        self.post("/orders", key, &format!(r#"{{"item":"pen","cents":{cents}}}"#)).await
    }

    /// Posts an order of a pen under the key `"k"`, on a connection of its own whose answer nobody has read yet.
    pub async fn order_unread(&self) -> TcpStream {
        let body = r#"{"item":"pen","cents":5}"#;
        let request = format!(
            "POST /orders HTTP/1.1\r\nhost: shop\r\nidempotency-key: \"k\"\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut client = TcpStream::connect(self.address).await.expect("connects");
        client.write_all(request.as_bytes()).await.expect("sends");
        client
    }

    /// Posts JSON under a key.
    pub async fn post(&self, path: &str, key: &str, body: &str) -> Answer {
        self.send(Method::POST, path, &[("idempotency-key", key), JSON], body.to_owned()).await
    }
}

/// The content type of an order.
pub const JSON: (&str, &str) = ("content-type", "application/json");

/// A client that keeps its connections.
#[must_use]
pub fn client() -> Client<HttpConnector, Full<bytes::Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Sends a request to a server of another process.
pub async fn send(
    client: &Client<HttpConnector, Full<bytes::Bytes>>,
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: bytes::Bytes,
) -> Answer {
    try_send(client, address, method, path, headers, body).await.expect("an answer")
}

/// The same where the server may go away.
///
/// # Errors
/// When no answer came.
pub async fn try_send(
    client: &Client<HttpConnector, Full<bytes::Bytes>>,
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: bytes::Bytes,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes())?);
    }
    let response = client.request(request.body(Full::new(body))?).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Who asks, by headers that only a test would trust. `x-user` is `revoked`, `forbidden`, `limited` or
/// `nobody` for those that a service turns away, or forgets to name; `x-turned-away` has the status with which anybody
/// is.
pub async fn authenticated(mut request: Request, next: Next) -> Response {
    if let Ok(status) = named(&request, "x-turned-away", "").parse::<u16>() {
        return StatusCode::from_u16(status).expect("a status").into_response();
    }
    let (tenant, user) = (named(&request, "x-tenant", "t"), named(&request, "x-user", "u"));
    match &*user {
        "revoked" => return StatusCode::UNAUTHORIZED.into_response(),
        "forbidden" => return StatusCode::FORBIDDEN.into_response(),
        "limited" => return StatusCode::TOO_MANY_REQUESTS.into_response(),
        "nobody" => {}
        user => {
            request.extensions_mut().insert(Caller::new(tenant, user));
        }
    }
    next.run(request).await
}

fn named(request: &Request, name: &str, default: &str) -> String {
    let value = request.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or(default).to_owned()
}
