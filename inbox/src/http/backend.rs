use message::{Fingerprint, OperationKey};

use crate::backend::stores;
use crate::builder::InboxConnection;
use crate::store::Row;
use crate::store::request::{Claim, Found, Known, Standing};
use crate::{Consumer, InboxBackend};

stores! {
    /// What a database does for requests under an idempotency key. Implemented for `Pg` and `Sqlite`.
    #[diagnostic::on_unimplemented(
        message = "no idempotency keys on `{Self}`",
        note = "the crate `counterfoil-inbox` has the features `postgres` and `sqlite`, none of them by default"
    )]
    trait HttpBackend: diesel::backend::Backend, InboxBackend;
    fn look_unheld(row: &Row<'_>, lock: i64, window: i64) -> Found = request;
    fn look_at(row: &Row<'_>, window: i64) -> Option<Known> = request;
    fn insert_applied(row: &Row<'_>, reply: &str) -> bool = request;
    fn delete_expired(consumer: Consumer<'_>, operation: &OperationKey, window: i64) -> () = request;
    fn begin_request(claim: &Claim<'_>, fingerprint: &Fingerprint, lease: i64, window: i64) -> Option<i64> = request;
    fn request(consumer: Consumer<'_>, operation: &OperationKey, fingerprint: &Fingerprint) -> Option<Standing> = request;
    fn renew_request(claim: &Claim<'_>, lease: i64) -> bool = request;
    fn complete_request(claim: &Claim<'_>, reply: &str) -> bool = request;
    fn release_request(claim: &Claim<'_>) -> bool = request;
    fn delete_requests(consumer: Consumer<'_>, window: i64, rows: i64) -> i64 = request;
    fn still_good() -> () = request;
}

/// A connection that requests can be kept on: `PgConnection` or `SqliteConnection`.
pub trait HttpConnection: InboxConnection<Backend: HttpBackend> {}

impl<C> HttpConnection for C where C: InboxConnection<Backend: HttpBackend> {}
