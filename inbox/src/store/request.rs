use message::OperationKey;

use crate::Consumer;

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
    /// Different for every run, so that it fences alone where a key was freed in between.
    pub(crate) owner: &'a str,
    pub(crate) epoch: i64,
}

/// What stands under the key of a request that runs outside a transaction.
#[derive(Debug)]
pub struct Standing {
    /// Its content was the same.
    pub(crate) same: bool,
    /// `None` while it is in progress.
    pub(crate) reply: Option<String>,
}
