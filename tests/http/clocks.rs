//! Application nodes whose clocks are an hour ahead and an hour behind.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use axum::http::Method;
use diesel::{PgConnection, RunQueryDsl, sql_query};
use support::database::Database;
use support::http::{Answer, JSON, client, send};
use support::inbox::Store;
use support::process::{Process, binary};

const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
];

/// A server that keeps keys for half an hour, with its clock off.
fn server(database: &Database, clock: &str) -> (Process, SocketAddr) {
    let library = LIBRARIES.iter().find(|path| Path::new(path).exists());
    let library = library.expect("libfaketime is not installed (Debian, Ubuntu: faketime)");
    let mut command = Command::new(binary("doomed_server"));
    command.args(["well", &database.url, "1800"]).env("LD_PRELOAD", library).env("FAKETIME", clock);
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    let mut process = Process::spawn(command);
    process.wait_for("listens on ");
    let line = process.output.lines().last().expect("said so").to_owned();
    (process, line.trim_start_matches("listens on ").parse().expect("an address"))
}

async fn post(address: SocketAddr, path: &str, key: &str) -> Answer {
    let headers = [("idempotency-key", key), JSON];
    let pen = r#"{"item":"pen","cents":5}"#;
    send(&client(), address, Method::POST, path, &headers, pen.into()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t33_expiry_follows_the_database_s_clock() {
    support::bounded(async {
        let database = PgConnection::database();
        let (_ahead, ahead) = server(&database, "+1h");
        let (_behind, behind) = server(&database, "-1h");
        let conn = &mut database.pg();
        // The transaction's, and the layer's.
        for (path, column) in [
            ("/orders", "inbox_operations SET applied_at"),
            ("/calls", "inbox_requests SET completed_at"),
        ] {
            let replayed = async |node, key| post(node, path, key).await.is_replayed();
            assert!(!replayed(behind, "\"a\"").await);
            assert!(replayed(ahead, "\"a\"").await, "not expired by the clock ahead");
            assert!(!replayed(ahead, "\"b\"").await);
            assert!(replayed(behind, "\"b\"").await);
            let name = column.rsplit(' ').next().unwrap_or_default();
            let older = format!("UPDATE {column} = {name} - interval '31 minutes'");
            assert_eq!(sql_query(older).execute(conn), Ok(2));
            assert!(!replayed(behind, "\"a\"").await, "expired in spite of the clock behind");
            assert!(!replayed(ahead, "\"b\"").await);
        }
        assert_eq!(PgConnection::credits(conn, "pen"), [5; 4]);
    })
    .await;
}
