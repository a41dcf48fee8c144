use diesel::QueryResult;
use diesel::result::{DatabaseErrorKind, Error};
use message::OperationKey;

use super::Row;
use super::statement::{Bind, Statement, sql};
use crate::Consumer;

// Without ON CONFLICT, for which PostgreSQL looks into each unique index once more: who is late rolls back in any
// case.
sql!(
    InsertApplied = "INSERT INTO inbox_operations (consumer, scope, operation, fingerprint, result)
     VALUES (?, ?, ?, ?, ?)"
);

/// Writes what a request has done, with its reply. The same on both databases.
pub(crate) fn insert_applied<'a>(
    row: &Row<'a>,
    reply: &'a str,
) -> Statement<'a, 5, (), InsertApplied> {
    Statement::named([
        Bind::Text(row.consumer.0),
        Bind::Text(row.operation.scope()),
        Bind::Text(row.operation.id()),
        Bind::Bytes(row.fingerprint.as_bytes()),
        Bind::Text(reply),
    ])
}

/// False where the row was there already.
pub(crate) fn unless_taken(written: QueryResult<usize>) -> QueryResult<bool> {
    match written {
        Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => Ok(false),
        written => written.map(|_| true),
    }
}

/// What was found under the key of a request whose handler is a transaction.
#[derive(Debug)]
pub enum Found {
    /// Nothing, and no other transaction has the key until this one ends.
    Free,
    /// Nothing, or something that ends now, and another transaction has the key.
    Held,
    /// What the first time left.
    Known(Known),
}

/// What the first request left.
#[derive(Debug)]
pub struct Known {
    /// Its content was the same.
    pub(crate) same: bool,
    /// The reply as it was stored; `None` where retention has dropped it.
    pub(crate) reply: Option<String>,
    /// By the database's clock it is older than its window.
    pub(crate) expired: bool,
}

/// The right to run a handler outside a transaction, until the lease ends.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    pub(crate) consumer: Consumer<'a>,
    pub(crate) operation: &'a OperationKey,
    /// Different for every run, and so the fence: an epoch begins anew where a key was freed in between.
    pub(crate) owner: &'a str,
}

/// What stands under the key of a request that runs outside a transaction.
#[derive(Debug)]
pub struct Standing {
    /// Its content was the same.
    pub(crate) same: bool,
    /// `None` while it is in progress.
    pub(crate) reply: Option<String>,
}
