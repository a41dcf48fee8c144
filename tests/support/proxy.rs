//! A TCP proxy inside the test process that breaks the network on demand, in front of either service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Which way bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

/// A listener on loopback that passes connections on until it is told otherwise.
pub struct Proxy {
    address: SocketAddr,
    control: watch::Sender<Control>,
    accepted: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Control {
    /// Connections of an earlier generation are cut.
    generation: u64,
    refusing: bool,
    held_to_server: bool,
    held_to_client: bool,
    delay: Duration,
}

impl Control {
    fn holds(&self, direction: Direction) -> bool {
        match direction {
            Direction::ToServer => self.held_to_server,
            Direction::ToClient => self.held_to_client,
        }
    }
}

impl Proxy {
    /// A proxy to `host:port`.
    pub async fn to(upstream: impl Into<String>) -> Self {
        let upstream = upstream.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (control, _) = watch::channel(Control::default());
        let accepted = Arc::new(AtomicUsize::new(0));
        let held = Arc::new(AtomicUsize::new(0));
        let accepting = tokio::spawn(accept(
            listener,
            upstream,
            control.subscribe(),
            Arc::clone(&accepted),
            Arc::clone(&held),
        ));
        Self { address, control, accepted, held, accepting }
    }

    /// A proxy to where `url` points, and the URL that leads through it. Understands any
    /// `scheme://[user[:password]@]host:port[/…]`.
    pub async fn to_url(url: &str) -> (Self, String) {
        let (scheme, rest) = url.split_once("://").expect("a URL with scheme");
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, host) =
            authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
        let at = if user.is_empty() { "" } else { "@" };
        let proxy = Self::to(host).await;
        let through = format!("{scheme}://{user}{at}{}{path}", proxy.address);
        (proxy, through)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were made since the start or [`forget_accepted`](Self::forget_accepted).
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// How many bytes were read from either side and held back, since the start. A connection that
    /// is held shows its next 64 KiB here; what follows waits in the sockets.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// Counts from 0 again.
    pub fn forget_accepted(&self) {
        self.accepted.store(0, Ordering::SeqCst);
    }

    /// Cuts every connection at once; what is held or delayed is lost. New ones pass.
    pub fn cut(&self) {
        self.control.send_modify(|control| control.generation += 1);
    }

    /// Whether new connections are closed as soon as they are made.
    pub fn refuse(&self, refusing: bool) {
        self.control.send_modify(|control| control.refusing = refusing);
    }

    /// Lets nothing through in either direction, with every connection left open: a network that
    /// swallows packets. [`resume`](Self::resume) delivers what was held.
    pub fn blackhole(&self) {
        self.hold(Direction::ToServer);
        self.hold(Direction::ToClient);
    }

    /// Lets nothing through in one direction. Followed by [`cut`](Self::cut) it is lost for good.
    pub fn hold(&self, direction: Direction) {
        self.control.send_modify(|control| match direction {
            Direction::ToServer => control.held_to_server = true,
            Direction::ToClient => control.held_to_client = true,
        });
    }

    /// Ends [`blackhole`](Self::blackhole) and [`hold`](Self::hold).
    pub fn resume(&self) {
        self.control.send_modify(|control| {
            control.held_to_server = false;
            control.held_to_client = false;
        });
    }

    /// Delays every piece of data by `delay`.
    pub fn delay(&self, delay: Duration) {
        self.control.send_modify(|control| control.delay = delay);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: String,
    control: watch::Receiver<Control>,
    accepted: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::SeqCst);
        if control.borrow().refusing {
            continue;
        }
        let (upstream, control, held) = (upstream.clone(), control.clone(), Arc::clone(&held));
        let generation = control.borrow().generation;
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(upstream).await else { return };
            for stream in [&client, &server] {
                stream.set_nodelay(true).expect("TCP_NODELAY");
            }
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            // The end of either direction ends both, and dropping the halves closes the sockets.
            tokio::select! {
                () = pump(from_client, to_server, Direction::ToServer, generation, control.clone(), &held) => {}
                () = pump(from_server, to_client, Direction::ToClient, generation, control.clone(), &held) => {}
                () = cut(generation, control.clone()) => {}
            }
        });
    }
}

async fn cut(generation: u64, mut control: watch::Receiver<Control>) {
    // An error means that the proxy is gone, which is a cut too.
    let _ = control.wait_for(|control| control.generation != generation).await;
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    generation: u64,
    mut control: watch::Receiver<Control>,
    held: &AtomicUsize,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        if control.borrow().holds(direction) {
            held.fetch_add(read, Ordering::SeqCst);
        }
        let delay = match control.wait_for(|control| !control.holds(direction)).await {
            Ok(control) if control.generation == generation => control.delay,
            _ => return,
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
