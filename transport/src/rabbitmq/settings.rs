use std::fmt;
use std::time::Duration;

/// How to reach and use a RabbitMQ broker.
///
/// `RabbitSettings::new(url)` with the defaults suits most installations.
#[derive(Clone)]
#[non_exhaustive]
pub struct RabbitSettings {
    /// `amqp://user:password@host:port/vhost`, user, password and vhost percent-encoded; without a
    /// vhost `/`. `amqps://` needs the crate's feature `tls`. Default
    /// `amqp://guest:guest@127.0.0.1:5672/%2f`.
    ///
    /// The query may hold `heartbeat` (seconds), `connection_timeout` (milliseconds), `frame_max`
    /// and `channel_max`; the first two win over the fields below. The password appears in no
    /// error, log or `Debug` output.
    pub url: String,
    /// Name of the connections in the broker's tools. Default `counterfoil`; the role (`publish` or
    /// `consume`) is added.
    pub connection_name: String,
    /// Heartbeat asked for. Default 5 s, whole seconds from 1 to 65,535; the broker may lower it. A
    /// silent peer is given up after two of them. Below 5 s a busy broker is taken for a dead one.
    pub heartbeat: Duration,
    /// Longest wait for the connection and for each single request on it: opening a channel,
    /// declaring, acknowledging, closing. Default 10 s. Raise it for far or slow brokers.
    pub connect_timeout: Duration,
    /// Longest time one batch may take to be written and confirmed, recovery from a refused message
    /// included. Default 10 s. After it the outcome is unknown and the batch is sent again: raise it
    /// when large batches meet slow disks, and keep it under the relay's lease.
    pub publish_timeout: Duration,
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
            connection_name: "counterfoil".to_owned(),
            heartbeat: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            publish_timeout: Duration::from_secs(10),
            window: 1_000,
        }
    }
}

impl fmt::Debug for RabbitSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = match super::address::Address::parse(self) {
            Ok(address) => address.to_string(),
            // A broken URL can hold the password anywhere.
            Err(_) => "(not a valid URL)".to_owned(),
        };
        f.debug_struct("RabbitSettings")
            .field("url", &url)
            .field("connection_name", &self.connection_name)
            .field("heartbeat", &self.heartbeat)
            .field("connect_timeout", &self.connect_timeout)
            .field("publish_timeout", &self.publish_timeout)
            .field("window", &self.window)
            .finish()
    }
}
