//! A shop in a process of its own: `doomed_server POINT ADDRESS KEEP`, with POINT `apply` (it stays inside
//! its transaction), `commit` (it stays between the commit and the reply), `layer` (its handler stays, outside
//! any transaction) or `well`; KEEP in seconds. It takes the form's lease of a second.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test program that cannot go on fails its test"
)]

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::post;
use diesel::{PgConnection, SqliteConnection};
use inbox::http::{Idempotency, Idempotent, Policy};
use support::http::{Order, POLICY, Shopping, authenticated, place};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() {
    let orders: Vec<String> = std::env::args().skip(1).collect();
    let [point, address, keep] = &orders[..] else { panic!("three arguments") };
    let keep = Duration::from_secs(keep.parse().expect("seconds"));
    if address.starts_with("postgres") {
        serve::<PgConnection>(point, address, keep).await;
    } else {
        serve::<SqliteConnection>(point, address, keep).await;
    }
}

async fn serve<C: Shopping>(point: &str, address: &str, keep: Duration) {
    let db = db::Db::<C>::open(address, db::Settings::default()).expect("opens");
    let mut policy = Policy::new("doomed", POLICY);
    policy.keep = keep;
    policy.lease = Duration::from_secs(1);
    let front = Idempotency::new(policy, db).expect("a good policy");
    let (at_apply, at_commit, at_layer) = (point == "apply", point == "commit", point == "layer");
    let take = move |order: Idempotent<Order, C>| async move {
        let response = order
            .run(move |tx, order| {
                let reply = place(tx, order)?;
                if at_apply {
                    println!("is inside");
                    loop {
                        std::thread::park();
                    }
                }
                Ok(reply)
            })
            .await;
        if at_commit {
            println!("has committed");
            std::future::pending::<()>().await;
        }
        response
    };
    let call = move || async move {
        println!("calls the world");
        if at_layer {
            std::future::pending::<()>().await;
        }
        (StatusCode::CREATED, "called").into_response()
    };
    let router = Router::new()
        .route("/orders", post(take))
        .route("/calls", post(call).layer(front.layer()))
        .layer(middleware::from_fn(authenticated))
        .with_state(front);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("listens on {}", listener.local_addr().expect("bound"));
    axum::serve(listener, router).await.expect("serves");
}
