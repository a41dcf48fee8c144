//! `Idempotency-Key`: what a client may rely on, over a real socket. Test names begin with the row of
//! docs/http.md that they prove.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod bodies;
mod claims;
mod clocks;
mod concurrent;
mod contents;
mod cut;
mod effects;
mod expiry;
mod failing;
mod figures;
mod keys;
mod killed;
mod layered;
mod leases;
mod outrun;
mod replies;
mod secrets;
mod unkept;
mod unusable;

/// One test per scenario and database. A scenario is an async function over its connection type.
macro_rules! on_both {
    ($($scenario:ident),* $(,)?) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $scenario() {
                support::bounded(super::$scenario::<diesel::PgConnection>()).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $scenario() {
                support::bounded(super::$scenario::<diesel::SqliteConnection>()).await;
            })*
        }
    };
}
use on_both;
