//! Replies that cannot be kept, of handlers that have done their work: nobody does it again.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use diesel::SqliteConnection;
use inbox::http::{Idempotency, Policy, Reply, Seal};
use support::database::Database;
use support::http::{Order, Server, Shopping, place, policy};
use support::inbox::Store;

super::on_both!(
    the_layer_does_not_run_again_what_it_could_not_seal,
    the_layer_does_not_run_again_whose_sealing_panicked,
    the_layer_does_not_run_again_whose_body_broke_off,
    the_coding_of_a_body_is_kept_with_it,
);

/// Its key management is away, and it may be too surprised to say so.
#[derive(Debug)]
struct Away {
    panics: bool,
}

impl Seal for Away {
    fn seal(&self, _: &str, _: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        assert!(!self.panics, "no key to be had");
        Err("no key to be had".into())
    }

    fn open(&self, _: &str, _: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        Err("no key to be had".into())
    }
}

async fn layered<C: Shopping>(
    policy: Policy,
    database: &Database,
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> Server {
    let front = Idempotency::new(policy, C::pool(database)).expect("a good policy");
    Server::layered(&front, move |_| {
        let response = answer();
        async move { response }
    })
    .await
}

async fn the_layer_does_not_run_again_what_it_could_not_seal<C: Shopping>() {
    let database = C::database();
    let mut policy = policy();
    policy.seal = Some(Arc::new(Away { panics: false }));
    let shop = layered::<C>(policy, &database, || (StatusCode::CREATED, "charged").into_response());
    let shop = shop.await;
    let first = shop.order("\"k\"", 5).await;
    assert_eq!((first.status, &*first.body), (201, "charged"), "the truth for whoever is there");
    shop.order("\"k\"", 5).await.expect_problem(409, "reply-not-kept");
    assert_eq!(shop.runs(), 1);
}

async fn the_layer_does_not_run_again_whose_sealing_panicked<C: Shopping>() {
    let database = C::database();
    let mut policy = policy();
    policy.seal = Some(Arc::new(Away { panics: true }));
    let shop = layered::<C>(policy, &database, || (StatusCode::CREATED, "charged").into_response());
    let shop = shop.await;
    for _ in 0..2 {
        shop.order("\"k\"", 5).await.expect_problem(409, "reply-not-kept");
    }
    assert_eq!(shop.runs(), 1);
}

/// Of a known length, and ends before it.
struct Cut;

impl axum::body::HttpBody for Cut {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::task::Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(10)
    }
}

async fn the_layer_does_not_run_again_whose_body_broke_off<C: Shopping>() {
    let database = C::database();
    let answer = || (StatusCode::CREATED, Body::new(Cut)).into_response();
    let shop = layered::<C>(policy(), &database, answer).await;
    for _ in 0..2 {
        shop.order("\"k\"", 5).await.expect_problem(409, "reply-not-kept");
    }
    assert_eq!(shop.runs(), 1);
}

async fn the_coding_of_a_body_is_kept_with_it<C: Shopping>() {
    let database = C::database();
    let coded = HeaderValue::from_static("gzip");
    let reply = coded.clone();
    let answer = move || {
        let headers = [(CONTENT_ENCODING, reply.clone()), (CONTENT_LENGTH, 4.into())];
        (headers, "coded"[..4].to_owned()).into_response()
    };
    let shop = layered::<C>(policy(), &database, answer).await;
    for replayed in [false, true] {
        let answer = shop.order("\"k\"", 5).await;
        assert_eq!((answer.header("content-encoding"), answer.is_replayed()), ("gzip", replayed));
    }
}

/// On PostgreSQL such a transaction is doomed and says so; see T28.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_sqlite_no_reply_is_kept_of_a_transaction_that_was_ended_from_within() {
    let database = SqliteConnection::database();
    let conn = &mut SqliteConnection::connection(&database);
    for statement in
        ["CREATE TABLE taken (number INTEGER PRIMARY KEY)", "INSERT INTO taken VALUES (1)"]
    {
        SqliteConnection::execute(conn, statement).expect("executes");
    }
    let handler = |tx: &mut SqliteConnection, order: &Order| {
        let reply = place(tx, order)?;
        // Swallowed, as by a handler that takes it for "was there already".
        let swallowed = SqliteConnection::execute(tx, "INSERT OR ROLLBACK INTO taken VALUES (1)");
        assert!(swallowed.is_err());
        // By itself, and permanent at once.
        SqliteConnection::execute(tx, "DELETE FROM taken")?;
        Ok::<Reply, _>(reply)
    };
    let shop = Server::start(policy(), SqliteConnection::pool(&database), handler).await;
    for runs in 1..=2 {
        // Not "everything was undone".
        shop.order("\"k\"", 5).await.expect_problem(500, "interrupted");
        assert_eq!(SqliteConnection::count(conn, "taken"), 0);
        SqliteConnection::execute(conn, "INSERT INTO taken VALUES (1)").expect("executes");
        assert_eq!(shop.runs(), runs, "the key stays free");
        assert_eq!(SqliteConnection::count(conn, "inbox_operations"), 0);
        assert!(SqliteConnection::credits(conn, "pen").is_empty());
    }
}
