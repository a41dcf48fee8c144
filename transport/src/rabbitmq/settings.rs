use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How to reach and use a RabbitMQ broker.
///
/// `RabbitSettings::new(url)` with the defaults suits most installations.
#[derive(Clone)]
#[non_exhaustive]
pub struct RabbitSettings {
    /// `amqp://user:password@host:port/vhost`, user, password and vhost percent-encoded; without a
    /// vhost `/`. `amqps://` (TLS, port 5671) needs the crate's feature `tls`. `amqp://` is plain text
    /// and goes to loopback only, unless [`allow_plaintext`](Self::allow_plaintext) says otherwise.
    /// Default `amqp://guest:guest@127.0.0.1:5672/%2f`.
    ///
    /// The query may hold `heartbeat` (seconds), `connection_timeout` (milliseconds), `frame_max`
    /// and `channel_max`; the first two win over the fields below. The password appears in no
    /// error, log or `Debug` output.
    pub url: String,
    /// PEM file with the certificates of the authorities that may vouch for the broker, instead of the
    /// system's. Default `None`: the system's. Set it where the broker's certificate is from an
    /// authority of your own.
    ///
    /// This and the next two need `amqps://`. They are read for every connection: a renewed file is
    /// taken up at the next one.
    pub ca_file: Option<PathBuf>,
    /// PEM file with our own certificate, the chain behind it included. Default `None`. Set it, and the
    /// key, where the broker asks its clients for one (`verify_peer`).
    pub client_cert_file: Option<PathBuf>,
    /// PEM file with the private key of [`client_cert_file`](Self::client_cert_file), not encrypted.
    /// Its contents appear in no error, log or `Debug` output. Default `None`.
    pub client_key_file: Option<PathBuf>,
    /// Whether `amqp://` may leave this machine. Default `false`: user, password and messages would
    /// cross the network for everybody to read and to change. Set it where something else protects the
    /// way, as between containers of one host or in a mesh with TLS of its own. Never makes an
    /// `amqps://` connection fall back to plain text.
    pub allow_plaintext: bool,
    /// Name of the connections in the broker's tools. Default `counterfoil`; the role (`publish` or
    /// `consume`) is added.
    pub connection_name: String,
    /// Heartbeat asked for. Default 5 s, whole seconds from 1 to 65,535; the broker may lower it. A
    /// silent peer is given up after two of them. Below 5 s a busy broker is taken for a dead one.
    pub heartbeat: Duration,
    /// Longest wait for the connection and for each single request on it: opening a channel,
    /// declaring, acknowledging, closing. Default 10 s. Raise it for far or slow brokers.
    pub connect_timeout: Duration,
    /// Longest wait without a sign of life while publishing: no write done and no confirm come. Default
    /// 10 s. After it the outcome is unknown and what was in flight is sent again. Each write and each
    /// confirm starts it anew, so it need not fit the size of a batch; raise it where single confirms
    /// are slow (a disk that stalls, a cluster across regions) or single messages take long to write,
    /// and keep it under the relay's lease. It does not run while the broker blocks publishing.
    pub publish_timeout: Duration,
    /// Longest wait on a connection that the broker blocks over a memory or disk alarm. Default 5
    /// minutes. Nothing is sent twice over an alarm that ends before; after it the connection is given
    /// up, and what was in flight is sent again on a new one. Raise it where alarms last; lower it where
    /// another broker stands behind the same address and a new connection may reach that one.
    pub blocked_timeout: Duration,
    /// Most messages in flight on a lane before their confirms are awaited. Default 1,000. The
    /// client queues without bound, so this is what bounds memory; a window that meets a refused
    /// message is sent again, so it also bounds repeats.
    pub window: usize,
}

impl RabbitSettings {
    /// The defaults for a broker at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }
}

impl Default for RabbitSettings {
    fn default() -> Self {
        Self {
            url: "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned(),
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            allow_plaintext: false,
            connection_name: "counterfoil".to_owned(),
            heartbeat: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(10),
            blocked_timeout: Duration::from_secs(300),
            window: 1_000,
        }
    }
}

impl fmt::Debug for RabbitSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = match super::address::Address::parse(self) {
            Ok(address) => address.to_string(),
            // A broken URL can hold the password anywhere.
            Err(_) => "(not usable)".to_owned(),
        };
        f.debug_struct("RabbitSettings")
            .field("url", &url)
            .field("ca_file", &self.ca_file)
            .field("client_cert_file", &self.client_cert_file)
            .field("client_key_file", &self.client_key_file)
            .field("allow_plaintext", &self.allow_plaintext)
            .field("connection_name", &self.connection_name)
            .field("heartbeat", &self.heartbeat)
            .field("connect_timeout", &self.connect_timeout)
            .field("publish_timeout", &self.publish_timeout)
            .field("blocked_timeout", &self.blocked_timeout)
            .field("window", &self.window)
            .finish()
    }
}
