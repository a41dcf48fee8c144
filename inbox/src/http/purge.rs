use std::time::Duration;

use db::CallError;
use diesel::result::Error;
use tokio::{select, time::sleep};

use super::backend::{HttpBackend, HttpConnection};
use super::front::Idempotency;
use crate::store::micros;
use crate::{Consumer, InboxBackend};

/// Rows per statement: each is a transaction of its own and locks no more than these.
const ROWS: i64 = 1000;

/// What a purge has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgedKeys {
    /// Keys of [`Idempotent`](super::Idempotent).
    pub operations: u64,
    /// Keys of the [layer](super::IdempotencyLayer).
    pub requests: u64,
}

impl<C: HttpConnection> Idempotency<C> {
    /// Deletes what is older than [`Policy::keep`](super::Policy::keep), by the database's clock and in
    /// small pieces. A request in progress stays, however old. Nothing is decided by it: an expired key
    /// is as new before it is deleted, too. Several processes may purge at once.
    ///
    /// # Errors
    /// When the database refuses. What was deleted until then stays deleted.
    pub async fn purge(&self) -> Result<PurgedKeys, CallError<Error>> {
        let mut purged = PurgedKeys::default();
        loop {
            let shared = self.shared.clone();
            let call = self.shared.db.call_within(self.shared.policy.deadline, move |conn| {
                let (consumer, window) = (Consumer(&shared.consumer), micros(shared.policy.keep));
                let operations = C::Backend::delete_operations(conn, consumer, window, ROWS)?;
                let requests = C::Backend::delete_requests(conn, consumer, window, ROWS)?;
                Ok((operations, requests))
            });
            let (operations, requests) = call.await?;
            let telemetry = &self.shared.telemetry;
            telemetry.purged_operations.increment(operations.unsigned_abs());
            telemetry.purged_requests.increment(requests.unsigned_abs());
            purged.operations += operations.unsigned_abs();
            purged.requests += requests.unsigned_abs();
            if operations < ROWS && requests < ROWS {
                return Ok(purged);
            }
        }
    }

    /// Purges from time to time until `shutdown` is ready; run it beside the server. A round that fails
    /// is logged and made up for by the next one.
    pub async fn keep_purged(&self, every: Duration, shutdown: impl Future<Output = ()>) {
        let rounds = async {
            loop {
                // Several processes purge at different times.
                sleep(every.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
                if let Err(error) = self.purge().await {
                    tracing::warn!(policy = self.shared.policy.name, reason = %error, "cannot purge now");
                }
            }
        };
        select! {
            () = rounds => {}
            () = shutdown => {}
        }
    }
}
