//! The server is killed (SIGKILL) at a named point, and the client repeats its request at the next one.

use std::net::SocketAddr;

use axum::http::Method;
use diesel::PgConnection;
use support::database::Database;
use support::eventually;
use support::http::{Answer, JSON, Shopping, client, send, try_send};
use support::inbox::Store;
use support::process::Process;

super::on_both!(
    t18_killed_before_the_commit_a_repeat_runs_the_handler_once,
    t19_killed_between_commit_and_reply_a_repeat_gets_the_stored_reply,
);

const PEN: &str = r#"{"item":"pen","cents":5}"#;

/// A server with its address.
fn server(point: &str, database: &Database) -> (Process, SocketAddr) {
    let mut process = Process::start("doomed_server", &[point, &database.url, "86400"], &[]);
    process.wait_for("listens on ");
    let line = process.output.lines().last().expect("said so").to_owned();
    (process, line.trim_start_matches("listens on ").parse().expect("an address"))
}

async fn post(address: SocketAddr, path: &str) -> Answer {
    let headers = [("idempotency-key", "\"k\""), JSON];
    send(&client(), address, Method::POST, path, &headers, PEN.into()).await
}

/// Posts, and kills the server when it has said where it is.
async fn post_and_kill(point: &str, said: &'static str, path: &'static str, database: &Database) {
    let (mut process, address) = server(point, database);
    let request = tokio::spawn(async move {
        let headers = [("idempotency-key", "\"k\""), JSON];
        try_send(&client(), address, Method::POST, path, &headers, PEN.into()).await.is_err()
    });
    let killed = tokio::task::spawn_blocking(move || {
        process.wait_for(said);
        process.kill();
    });
    killed.await.expect("no panic");
    assert!(request.await.expect("no panic"), "the client got an answer");
}

/// The server notices that its client is gone when it next writes to it; until then the key is held.
async fn until_nobody_holds_it(address: SocketAddr, path: &str) -> Answer {
    let mut answer = post(address, path).await;
    eventually("the killed server's session has ended", async || {
        if answer.status == 409 {
            answer = post(address, path).await;
        }
        answer.status != 409
    })
    .await;
    answer
}

async fn t18_killed_before_the_commit_a_repeat_runs_the_handler_once<C: Shopping>() {
    let database = C::database();
    post_and_kill("apply", "is inside", "/orders", &database).await;
    let conn = &mut C::connection(&database);
    assert_eq!(C::count(conn, "inbox_operations"), 0);
    let (_process, address) = server("well", &database);
    let second = until_nobody_holds_it(address, "/orders").await;
    assert_eq!((second.status, second.is_replayed()), (201, false));
    let third = post(address, "/orders").await;
    assert_eq!((third.status, third.is_replayed(), &third.body), (201, true, &second.body));
    assert_eq!(C::credits(conn, "pen"), [5]);
    assert_eq!(C::count(conn, "outbox_messages"), 1);
}

async fn t19_killed_between_commit_and_reply_a_repeat_gets_the_stored_reply<C: Shopping>() {
    let database = C::database();
    post_and_kill("commit", "has committed", "/orders", &database).await;
    let conn = &mut C::connection(&database);
    assert_eq!(C::credits(conn, "pen"), [5]);
    let (_process, address) = server("well", &database);
    let again = post(address, "/orders").await;
    assert_eq!((again.status, again.is_replayed()), (201, true));
    // The number of the order that was committed, and not one of a second run.
    let reply: serde_json::Value = serde_json::from_str(&again.body).expect("JSON");
    let number = reply["number"].as_str().expect("a number");
    assert_eq!(again.header("location"), format!("/orders/{number}"));
    assert_eq!(C::count(conn, &format!("outbox_messages WHERE operation = '{number}'")), 1);
    assert_eq!(C::credits(conn, "pen"), [5]);
    assert_eq!(C::count(conn, "outbox_messages"), 1);
}

/// What the layer does not promise, and says so: its handler runs again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t22_killed_within_the_layer_the_lease_ends_and_a_repeat_takes_over() {
    support::bounded(async {
        let database = PgConnection::database();
        post_and_kill("layer", "calls the world", "/calls", &database).await;
        let conn = &mut database.pg();
        assert_eq!(PgConnection::count(conn, "inbox_requests WHERE state = 'in_progress'"), 1);
        let (_process, address) = server("well", &database);
        let again = until_nobody_holds_it(address, "/calls").await;
        assert_eq!((again.status, again.is_replayed()), (201, false));
        let taken = "inbox_requests WHERE state = 'completed' AND epoch = 2";
        assert_eq!(PgConnection::count(conn, taken), 1);
        assert!(post(address, "/calls").await.is_replayed());
    })
    .await;
}
