/// What one batch of the purge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Rows deleted, or that would be.
    pub deleted: u64,
    /// Where the next batch starts: the last place looked at. Handing it on keeps the next batch from
    /// walking over what this one deleted. It also passes what is held; start at 0 now and then.
    pub next: i64,
    /// Whether there is no more to do at present: the end of the log, or a row that is too young or
    /// not handed on by every cursor.
    pub done: bool,
}
