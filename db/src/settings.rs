use std::path::PathBuf;
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
    /// below `statement_timeout`, and a relay's below its lease. Zero means no limit on PostgreSQL and no wait on SQLite.
    pub lock_timeout: Duration,
    /// After this long idle inside a transaction PostgreSQL ends the session, so that a stuck
    /// process does not hold its locks for ever. Default 60 s, zero for never.
    pub idle_in_transaction_timeout: Duration,
    /// After this long without an acknowledgement from a silent peer the connection to PostgreSQL
    /// is given up, while statements are under way. Default 30 s. Ignored where the address sets
    /// `tcp_user_timeout` itself.
    pub tcp_user_timeout: Duration,
    /// How the sessions call themselves in `pg_stat_activity`. Default `counterfoil`.
    pub application_name: String,
    /// The address is that of a pooler that gives out a server connection per transaction (PgBouncer
    /// with `pool_mode = transaction`). Then nothing is kept in the session: no prepared statements,
    /// no `SET`; each [`call`](crate::Db::call) is one transaction that brings its guards along, two
    /// round trips more. Default false. Leave it off for a direct connection and for
    /// `pool_mode = session`. Ignored on SQLite.
    pub transaction_pooler: bool,
    /// PEM file with the authorities that a PostgreSQL server's certificate may come from. Default
    /// none: `sslrootcert` of the address, else `~/.postgresql/root.crt`. Set it for every server that
    /// is not on this machine.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate to show to a PostgreSQL server that asks for one. Default none.
    /// Goes together with `client_key_file`.
    pub client_cert_file: Option<PathBuf>,
    /// PEM file with the key of `client_cert_file`, readable by its owner only. Default none.
    pub client_key_file: Option<PathBuf>,
    /// Lets a connection to a PostgreSQL server on another machine go without TLS, or with a
    /// certificate that nobody checks. Default false: such an address is refused, and one that names
    /// no `sslmode` gets `verify-full`. Set it only where the network itself is trusted. Not needed for
    /// loopback addresses and unix sockets.
    pub allow_plaintext: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pool_size: 8,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(60),
            lock_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(60),
            tcp_user_timeout: Duration::from_secs(30),
            application_name: "counterfoil".to_owned(),
            transaction_pooler: false,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            allow_plaintext: false,
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

    /// The defaults for an address that leads to a transaction pooler.
    #[must_use]
    pub fn behind_transaction_pooler(mut self) -> Self {
        self.transaction_pooler = true;
        self
    }
}
