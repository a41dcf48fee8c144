//! Request bodies over the limit.

use axum::http::Method;
use inbox::http::Idempotency;
use support::http::{JSON, Server, Shopping, place, policy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

super::on_both!(t31_a_body_over_the_limit_is_413_before_anything_is_stored);

async fn t31_a_body_over_the_limit_is_413_before_anything_is_stored<C: Shopping>() {
    let database = C::database();
    let mut policy = policy();
    policy.max_body = 100;
    let front = Idempotency::new(policy.clone(), C::pool(&database)).expect("a good policy");
    let within = Server::start(policy, C::pool(&database), place::<C>).await;
    let around =
        Server::layered(&front, async |_| axum::response::IntoResponse::into_response(())).await;
    let long = format!(r#"{{"item":"{}","cents":5}}"#, "x".repeat(100));
    for shop in [&within, &around] {
        let key = [("idempotency-key", "\"k\""), JSON];
        shop.send(Method::POST, "/orders", &key, long.clone())
            .await
            .expect_problem(413, "too-large");
        // Without a length nobody knows before it comes.
        let mut client = TcpStream::connect(shop.address).await.expect("connects");
        let request = format!(
            "POST /orders HTTP/1.1\r\nhost: shop\r\nidempotency-key: \"k\"\r\ncontent-type: application/json\r\n\
             connection: close\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
            long.len()
        );
        client.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("answers");
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("#too-large"), "{answer}");
        assert_eq!(shop.runs(), 0);
    }
    let conn = &mut C::connection(&database);
    assert_eq!(C::count(conn, "inbox_operations"), 0);
    assert_eq!(C::count(conn, "inbox_requests"), 0);
    assert_eq!(within.order("\"k\"", 5).await.status, 201, "the key is free");
}
