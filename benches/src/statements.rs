use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use url::Url;

/// Asks whether the server speaks TLS, and whether it encrypts by GSSAPI; each is answered with one
/// byte, and the greeting follows.
const ENQUIRIES: [u32; 2] = [80_877_103, 80_877_104];

/// Counts the statements that a program sends to PostgreSQL, exactly and whatever the server keeps
/// account of: stands between them and reads the protocol.
pub struct Statements {
    /// Where to send the program.
    pub database_url: String,
    count: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Statements {
    /// Listens in front of a database.
    ///
    /// # Errors
    /// When the address has no host and port, or no port is free.
    pub async fn before(database_url: &str) -> Result<Self> {
        let mut url = Url::parse(database_url)?;
        let host = url.host_str().context("no host in the database's address")?.to_owned();
        let server = (host, url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let put = url.set_host(Some("127.0.0.1")).is_ok() && url.set_port(Some(port)).is_ok();
        anyhow::ensure!(put, "the database's address takes no other host and port");
        let count = Arc::new(AtomicU64::new(0));
        let seen = count.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, seen) = (server.clone(), seen.clone());
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        // An error is the end of the connection, which both sides notice.
                        let _ = carry(client, server, &seen).await;
                    }
                });
            }
        });
        Ok(Self { database_url: url.into(), count, task })
    }

    /// Statements sent so far, BEGIN and COMMIT among them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Statements {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, server: TcpStream, seen: &AtomicU64) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    });
    let forth = async {
        // Until the greeting messages have no type.
        loop {
            let message = message(&mut from_client, None).await?;
            to_server.write_all(&message).await?;
            let code = message.get(4..8).and_then(|code| code.try_into().ok());
            if !code.is_some_and(|code| ENQUIRIES.contains(&u32::from_be_bytes(code))) {
                break;
            }
        }
        loop {
            let kind = from_client.read_u8().await?;
            let message = message(&mut from_client, Some(kind)).await?;
            // Query, which is a statement in one piece, and Execute.
            if matches!(kind, b'Q' | b'E') {
                seen.fetch_add(1, Ordering::Relaxed);
            }
            to_server.write_all(&message).await?;
        }
    };
    let ended: std::io::Result<()> = forth.await;
    let _ = to_server.shutdown().await;
    back.abort();
    ended
}

/// One message whole: its type if it has one, its length, and the rest.
async fn message(
    from: &mut (impl AsyncRead + Unpin),
    kind: Option<u8>,
) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut message: Vec<u8> = kind.into_iter().chain(length.to_be_bytes()).collect();
    let rest = message.len() + (length as usize).saturating_sub(4);
    let start = message.len();
    message.resize(rest, 0);
    from.read_exact(&mut message[start..]).await?;
    Ok(message)
}
