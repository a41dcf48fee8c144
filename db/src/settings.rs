use std::time::Duration;

/// How connections are opened and guarded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Most connections held. Default 8. A relay needs 3; an inbox needs one per worker. Raise it when calls fail with [`CallError::PoolExhausted`](crate::CallError).
    pub pool_size: u32,
    /// Longest wait for a free connection, opening one included. Default 10 s.
    pub acquire_timeout: Duration,
    /// Longest run of one statement on PostgreSQL; frees a worker whose server hangs. Default 60 s,
    /// zero for no limit. Handlers share it.
    pub statement_timeout: Duration,
    /// Longest wait for a row or table lock on PostgreSQL, also a concurrent duplicate's wait for
    /// the first one to finish; longest wait for the write lock on SQLite. Default 10 s. Keep it
    /// below `statement_timeout`. Zero means no limit on PostgreSQL and no wait on SQLite.
    pub lock_timeout: Duration,
    /// After this long idle inside a transaction PostgreSQL ends the session, so that a stuck
    /// process does not hold its locks for ever. Default 5 min, zero for never.
    pub idle_in_transaction_timeout: Duration,
    /// After this long without an acknowledgement from a silent peer the connection to PostgreSQL
    /// is given up, while statements are under way. Default 30 s. Ignored where the address sets
    /// `tcp_user_timeout` itself.
    pub tcp_user_timeout: Duration,
    /// How the sessions call themselves in `pg_stat_activity`. Default `counterfoil`.
    pub application_name: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pool_size: 8,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(60),
            lock_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(300),
            tcp_user_timeout: Duration::from_secs(30),
            application_name: "counterfoil".to_owned(),
        }
    }
}

impl Settings {
    /// The defaults with another pool size.
    #[must_use]
    pub fn with_pool_size(mut self, connections: u32) -> Self {
        self.pool_size = connections;
        self
    }

    /// The defaults with another session name.
    #[must_use]
    pub fn with_application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = name.into();
        self
    }
}
