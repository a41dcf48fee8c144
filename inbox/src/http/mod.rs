//! `Idempotency-Key` for axum: a POST that is repeated takes effect once, and gets its first reply again.
//!
//! [`Idempotent`] is an extractor whose [`run`](Idempotent::run) commits the business change, the messages it
//! enqueues and the reply in one transaction. [`IdempotencyLayer`] is for handlers that are no
//! transaction; it is weaker, and says how. Both follow the IETF draft
//! `draft-ietf-httpapi-idempotency-key-header-07` and answer with problems of RFC 9457 that point to the
//! [`Policy`] you publish; `docs/http.md` of the project is a page to begin that with, and the place for
//! what is promised and what is not.
//!
//! ```
//! use axum::extract::Request;
//! use axum::http::StatusCode;
//! use axum::middleware::{self, Next};
//! use axum::response::Response;
//! use axum::routing::post;
//! use axum::{Router, body::Body};
//! use diesel::prelude::*;
//! use inbox::http::{Caller, Idempotency, Idempotent, Policy, Reply};
//! # use tower_service::Service;
//!
//! #[derive(serde::Deserialize)]
//! struct NewOrder { item: String }
//!
//! async fn place(order: Idempotent<NewOrder, SqliteConnection>) -> Response {
//!     order.run(|tx, order| {
//!         diesel::sql_query("INSERT INTO orders (item) VALUES (?)")
//!             .bind::<diesel::sql_types::Text, _>(&order.item)
//!             .execute(tx)?;
//!         // … outbox::enqueue(tx, &OrderPlaced { .. })? …
//!         Ok(Reply::json(StatusCode::CREATED, &serde_json::json!({ "item": order.item }))?)
//!     }).await
//! }
//!
//! /// Stands for what authenticates.
//! async fn authenticated(mut request: Request, next: Next) -> Response {
//!     request.extensions_mut().insert(Caller::new("tenant 1", "alice"));
//!     next.run(request).await
//! }
//!
//! # let file = std::env::temp_dir().join(format!("counterfoil-http-doc-{}.db", std::process::id()));
//! # let url = file.display().to_string();
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! let db = db::Db::<SqliteConnection>::connect(&url, db::Settings::default()).await?;
//! # db.call(|conn| migrations::run(conn)).await?;
//! # db.call(|conn| diesel::sql_query("CREATE TABLE orders (item TEXT)").execute(conn)).await?;
//! let policy = Policy::new("orders", "https://shop.example/idempotency");
//! let mut app = Router::new()
//!     .route("/orders", post(place))
//!     .layer(middleware::from_fn(authenticated))
//!     .with_state(Idempotency::new(policy, db)?);
//!
//! let request = || {
//!     Request::post("/orders")
//!         .header("idempotency-key", "\"8e03978e-40d5-43e8-bc93-6894a57f9324\"")
//!         .header("content-type", "application/json")
//!         .body(Body::from(r#"{"item":"pen"}"#))
//! };
//! let first = app.call(request()?).await?;
//! assert_eq!(first.status(), 201);
//! let again = app.call(request()?).await?;
//! assert_eq!(again.status(), 201);
//! assert_eq!(again.headers()["idempotency-replayed"], "true");
//! # for end in ["", "-wal", "-shm"] { let _ = std::fs::remove_file(format!("{url}{end}")); }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backend;
mod body;
mod caller;
mod course;
mod earlier;
mod ending;
mod failed;
mod front;
mod idempotent;
mod identity;
mod key;
mod layer;
mod lease;
mod leased;
mod policy;
mod problem;
mod purge;
mod reply;
mod seal;
mod stored;
pub mod telemetry;
mod transaction;
mod unkept;

pub use backend::{HttpBackend, HttpConnection};
pub use caller::Caller;
pub use ending::RequestEnding;
pub use failed::Failed;
pub use front::Idempotency;
pub use idempotent::Idempotent;
pub use key::KEY;
pub use layer::{IdempotencyLayer, IdempotencyService};
pub use policy::{Compare, Keep, Policy, PolicyError};
pub use purge::PurgedKeys;
pub use reply::{REPLAYED, Reply};
pub use seal::Seal;
pub use unkept::Unkept;
