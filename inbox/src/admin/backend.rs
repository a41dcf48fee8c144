use bytes::Bytes;
use message::Headers;

use super::{AuditEntry, ParkedCount, ParkedInfo, Picked, Selection};
use crate::backend::stores;

stores! {
    /// The statements of an operator. Implemented for `Pg` and `Sqlite`; see
    /// [`InboxBackend`](crate::InboxBackend).
    trait AdminBackend: diesel::backend::Backend;
    fn list(which: &Selection) -> Vec<ParkedInfo> = admin;
    fn content(id: i64) -> Option<(Headers, Option<String>, Bytes)> = admin;
    fn counts(consumer: Option<&str>) -> Vec<ParkedCount> = admin;
    fn pick(which: &Selection) -> Vec<Picked> = admin;
    fn head_before(consumer: &str, key: &str, id: i64) -> Option<i64> = admin;
    fn make_due(ids: &str) -> () = admin;
    fn remove(ids: &str) -> () = admin;
    fn record(ids: &str, action: &str, actor: &str, reason: &str) -> () = admin;
    fn audit(limit: i64) -> Vec<AuditEntry> = admin;
}
