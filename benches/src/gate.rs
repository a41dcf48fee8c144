use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use url::Url;

/// A way to the broker that can be shut: what was connected is cut, and the port then refuses as that
/// of a dead broker does.
pub struct Gate {
    address: SocketAddr,
    broker: String,
    /// The URL that leads through it.
    pub url: String,
    open: Option<JoinSet<()>>,
}

impl Gate {
    /// An open gate to where `amqp_url` points.
    ///
    /// # Errors
    /// When there is no free port or the URL names no host.
    pub async fn to(amqp_url: &str) -> Result<Self> {
        let mut url = Url::parse(amqp_url)?;
        let host = url.host_str().context("AMQP_URL names no host")?;
        let broker = format!("{host}:{}", url.port().unwrap_or(5672));
        // Below the range of outgoing connections: a client that dials a shut port of that range can
        // meet itself.
        let port =
            (20_000..32_000).find(|port| listen((Ipv4Addr::LOCALHOST, *port).into()).is_ok());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.context("no free port")?));
        url.set_ip_host(address.ip()).ok().context("AMQP_URL takes no address")?;
        url.set_port(Some(address.port())).ok().context("AMQP_URL takes no port")?;
        let mut gate = Self { address, broker, url: url.into(), open: None };
        gate.open().await?;
        Ok(gate)
    }

    /// Lets connections through.
    ///
    /// # Errors
    /// When somebody else took the port.
    pub async fn open(&mut self) -> Result<()> {
        let listener = listen(self.address)?;
        let broker = self.broker.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((mut client, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let broker = broker.clone();
                connections.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(broker).await {
                        let _ = client.set_nodelay(true).and(server.set_nodelay(true));
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        self.open = Some(tasks);
        Ok(())
    }

    /// Cuts every connection and refuses new ones.
    pub async fn shut(&mut self) {
        if let Some(mut tasks) = self.open.take() {
            tasks.shutdown().await;
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // What was cut lingers on the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(64)
}
