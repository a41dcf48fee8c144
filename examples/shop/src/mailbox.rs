use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A mail server for one purpose: it keeps what it is sent, and now and then the line goes dead before it has said
/// so, or before it has kept anything. As much of RFC 5321 as a client needs to deliver.
#[derive(Clone)]
pub(crate) struct Mailbox {
    pub(crate) address: SocketAddr,
    mails: Arc<Mutex<Mails>>,
}

#[derive(Default)]
struct Mails {
    sent: usize,
    broken: usize,
    kept: Vec<String>,
}

impl Mailbox {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mailbox = Self { address: listener.local_addr()?, mails: Arc::default() };
        let serving = mailbox.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(connection));
            }
        });
        Ok(mailbox)
    }

    fn mails(&self) -> MutexGuard<'_, Mails> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `Message-ID` of each mail that was kept.
    pub(crate) fn message_ids(&self) -> Vec<String> {
        self.mails().kept.clone()
    }

    /// Connections that went dead.
    pub(crate) fn broken(&self) -> usize {
        self.mails().broken
    }

    async fn serve(self, connection: TcpStream) -> std::io::Result<()> {
        let mut connection = BufReader::new(connection);
        connection.write_all(b"220 mailbox.example\r\n").await?;
        let mut line = String::new();
        loop {
            line.clear();
            if connection.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let verb = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            let reply: &[u8] = match &*verb {
                "EHLO" | "HELO" | "MAIL" | "RCPT" | "RSET" | "NOOP" => b"250 ok\r\n",
                "DATA" => {
                    connection.write_all(b"354 go on\r\n").await?;
                    let message_id = read_mail(&mut connection).await?;
                    if !self.keep(message_id) {
                        return Ok(());
                    }
                    b"250 kept\r\n"
                }
                "QUIT" => {
                    connection.write_all(b"221 bye\r\n").await?;
                    return Ok(());
                }
                _ => b"502 not here\r\n",
            };
            connection.write_all(reply).await?;
        }
    }

    /// Whether the client is told.
    fn keep(&self, message_id: String) -> bool {
        let mut mails = self.mails();
        mails.sent += 1;
        let told = match mails.sent % 9 {
            4 => false,
            8 => {
                mails.broken += 1;
                return false;
            }
            _ => true,
        };
        mails.kept.push(message_id);
        mails.broken += usize::from(!told);
        told
    }
}

/// Reads a mail to its end; its `Message-ID`.
async fn read_mail(connection: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let (mut line, mut message_id) = (String::new(), String::new());
    loop {
        line.clear();
        if connection.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_end();
        if text == "." {
            return Ok(message_id);
        }
        if let Some(id) = text.strip_prefix("Message-ID: ") {
            message_id = id.to_owned();
        }
    }
}
