//! A provider in the test's own process: an HTTP server that performs what it is asked for and loses connections,
//! some before it has done anything and some after. And the client that asks it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inbox::effect::{Answer, BoxError, CallFailure, ProviderKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a request takes: long enough for a kill to meet many in it.
const WORK: Duration = Duration::from_millis(5);

/// What was asked for under one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Requests that arrived.
    pub requests: usize,
    /// How often it was performed.
    pub performed: usize,
}

/// The server.
#[derive(Clone)]
pub struct Stub {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    honours_keys: bool,
    /// Connections lost before the work, and as many after it, in a hundred.
    losses: AtomicU8,
    accounts: Mutex<BTreeMap<String, Account>>,
}

impl Stub {
    /// Starts one that loses two requests in five.
    ///
    /// # Panics
    /// When there is no port for it.
    pub async fn start(honours_keys: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let state =
            Arc::new(State { honours_keys, losses: AtomicU8::new(20), accounts: Mutex::default() });
        let serving = state.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                // A connection that its client gives up is nobody's loss.
                tokio::spawn(serve(serving.clone(), connection));
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on it loses nothing.
    pub fn be_reliable(&self) {
        self.state.losses.store(0, Ordering::SeqCst);
    }

    /// What was asked for, by key.
    #[must_use]
    pub fn accounts(&self) -> BTreeMap<String, Account> {
        self.state.accounts.lock().expect("no panic").clone()
    }

    /// How many effects were performed, repetitions included.
    #[must_use]
    pub fn performed(&self) -> usize {
        self.accounts().values().map(|account| account.performed).sum()
    }
}

async fn serve(state: Arc<State>, mut connection: TcpStream) -> std::io::Result<()> {
    let head = read_to_end_of_head(&mut connection).await?;
    let mut words = head.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let key = path.trim_start_matches("/charges/").to_owned();
    let reply = if method == "GET" {
        let known = state.accounts.lock().expect("no panic").get(&key).copied();
        if known.is_some_and(|account| account.performed > 0) { "200 OK" } else { "404 Not Found" }
    } else {
        let chance = fastrand::u8(..100);
        let losses = state.losses.load(Ordering::SeqCst);
        tokio::time::sleep(WORK).await;
        {
            let mut accounts = state.accounts.lock().expect("no panic");
            let account = accounts.entry(key).or_default();
            account.requests += 1;
            if chance < losses {
                return Ok(());
            }
            if account.performed == 0 || !state.honours_keys {
                account.performed += 1;
            }
        }
        if chance < 2 * losses {
            return Ok(());
        }
        "200 OK"
    };
    let reply = format!("HTTP/1.1 {reply}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    connection.write_all(reply.as_bytes()).await
}

async fn read_to_end_of_head(connection: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let read = connection.read_buf(&mut head).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Asks it to perform.
///
/// # Errors
/// Certain where no connection was made; else whatever broke is unknown.
pub async fn charge(address: &str, key: ProviderKey) -> Result<u32, CallFailure> {
    let connected = TcpStream::connect(address).await;
    let mut connection = connected.map_err(CallFailure::not_done)?;
    let reply = request(&mut connection, "POST", key).await?;
    if reply.starts_with("HTTP/1.1 200 ") { Ok(1) } else { Err(CallFailure::unknown(reply)) }
}

/// Asks it what became of a key.
///
/// # Errors
/// What broke.
pub async fn inquire(address: &str, key: ProviderKey) -> Result<Answer<u32>, BoxError> {
    let mut connection = TcpStream::connect(address).await?;
    let reply = request(&mut connection, "GET", key).await?;
    if reply.starts_with("HTTP/1.1 200 ") {
        Ok(Answer::Done(1))
    } else if reply.starts_with("HTTP/1.1 404 ") {
        Ok(Answer::NotDone)
    } else {
        Ok(Answer::StillUnknown)
    }
}

async fn request(
    connection: &mut TcpStream,
    method: &str,
    key: ProviderKey,
) -> std::io::Result<String> {
    let request =
        format!("{method} /charges/{key} HTTP/1.1\r\nHost: provider\r\nContent-Length: 0\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    read_to_end_of_head(connection).await
}
