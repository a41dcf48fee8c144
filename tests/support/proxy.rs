//! A TCP proxy inside the test process that breaks the network on demand, in front of either service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

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
    dropped: Option<Direction>,
    delay: Duration,
    jitter: Duration,
    /// Longest piece passed on at once, where data is cut up.
    slice: Option<usize>,
    /// After how many more bytes connections are cut.
    fuse: Option<(Direction, Arc<AtomicUsize>)>,
    /// Where new connections lead.
    upstream: String,
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
        let (control, _) = watch::channel(Control { upstream, ..Control::default() });
        let accepted = Arc::new(AtomicUsize::new(0));
        let held = Arc::new(AtomicUsize::new(0));
        let accepting = tokio::spawn(accept(
            listener,
            control.clone(),
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
    /// is held shows its next 64 pieces here; what follows waits in the sockets.
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

    /// Leads new connections to another `host:port`, as a name or address that moves to another
    /// server does. Those there are stay.
    pub fn redirect(&self, upstream: impl Into<String>) {
        self.control.send_modify(|control| control.upstream = upstream.into());
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

    /// Throws away what flows in one direction, with every connection left open.
    pub fn lose(&self, direction: Direction) {
        self.control.send_modify(|control| control.dropped = Some(direction));
    }

    /// Ends [`blackhole`](Self::blackhole), [`hold`](Self::hold) and [`lose`](Self::lose).
    pub fn resume(&self) {
        self.control.send_modify(|control| {
            control.held_to_server = false;
            control.held_to_client = false;
            control.dropped = None;
        });
    }

    /// Delays all data by `delay` and up to `jitter` more, in order and without bound to throughput.
    pub fn delay(&self, delay: Duration, jitter: Duration) {
        self.control.send_modify(|control| (control.delay, control.jitter) = (delay, jitter));
    }

    /// Passes data on in pieces of at most `bytes`; `None` as it comes.
    pub fn slice(&self, bytes: Option<usize>) {
        self.control.send_modify(|control| control.slice = bytes);
    }

    /// Cuts all connections once `bytes` more have passed in one direction, in the middle of
    /// whatever that is.
    pub fn cut_after(&self, direction: Direction, bytes: usize) {
        let fuse = Some((direction, Arc::new(AtomicUsize::new(bytes))));
        self.control.send_modify(|control| control.fuse = fuse);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// One way of one connection.
struct Way {
    direction: Direction,
    generation: u64,
    control: watch::Sender<Control>,
    held: Arc<AtomicUsize>,
}

async fn accept(
    listener: TcpListener,
    control: watch::Sender<Control>,
    accepted: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::SeqCst);
        if control.borrow().refusing {
            continue;
        }
        let (control, held) = (control.clone(), Arc::clone(&held));
        let (generation, upstream) = {
            let now = control.borrow();
            (now.generation, now.upstream.clone())
        };
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(upstream).await else { return };
            for stream in [&client, &server] {
                stream.set_nodelay(true).expect("TCP_NODELAY");
            }
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            let way = |direction| {
                let (control, held) = (control.clone(), Arc::clone(&held));
                Way { direction, generation, control, held }
            };
            // The end of either direction ends both, and dropping the halves closes the sockets.
            tokio::select! {
                () = way(Direction::ToServer).pump(from_client, to_server) => {}
                () = way(Direction::ToClient).pump(from_server, to_client) => {}
                () = cut(generation, control.subscribe()) => {}
            }
        });
    }
}

async fn cut(generation: u64, mut control: watch::Receiver<Control>) {
    // An error means that the proxy is gone, which is a cut too.
    let _ = control.wait_for(|control| control.generation != generation).await;
}

impl Way {
    /// Reads on while earlier data waits for its time, so that a delay costs no throughput.
    async fn pump(self, from: OwnedReadHalf, to: OwnedWriteHalf) {
        let (sender, pieces) = mpsc::channel(64);
        let reading = async {
            self.read(from, sender).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = reading => {}
            () = self.write(pieces, to) => {}
        }
    }

    async fn read(&self, mut from: OwnedReadHalf, pieces: mpsc::Sender<(Instant, Vec<u8>)>) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => read,
            };
            let (delay, jitter) = {
                let control = self.control.borrow();
                if control.holds(self.direction) {
                    self.held.fetch_add(read, Ordering::SeqCst);
                }
                (control.delay, control.jitter)
            };
            let due = Instant::now() + delay + jitter.mul_f64(fastrand::f64());
            if pieces.send((due, buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    }

    async fn write(&self, mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>, mut to: OwnedWriteHalf) {
        let mut control = self.control.subscribe();
        while let Some((due, data)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            let now = match control.wait_for(|control| !control.holds(self.direction)).await {
                Ok(control) if control.generation == self.generation => control.clone(),
                _ => return,
            };
            if now.dropped == Some(self.direction) {
                continue;
            }
            let allowed = match &now.fuse {
                Some((direction, left)) if *direction == self.direction => {
                    let burnt = |left: usize| Some(left.saturating_sub(data.len()));
                    let left = left
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, burnt)
                        .unwrap_or_default();
                    left.min(data.len())
                }
                _ => data.len(),
            };
            for piece in data[..allowed].chunks(now.slice.unwrap_or(data.len())) {
                if to.write_all(piece).await.is_err() {
                    return;
                }
            }
            if allowed < data.len() {
                self.control.send_modify(|control| {
                    control.generation += 1;
                    control.fuse = None;
                });
                return;
            }
        }
    }
}
