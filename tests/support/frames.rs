//! A proxy in front of RabbitMQ that knows where a frame ends: it can say what the broker would say in
//! an alarm, and hand out confirms one by one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

const METHOD: u8 = 1;
const END: u8 = 0xCE;
const CONNECTION_BLOCKED: [u8; 4] = [0, 10, 0, 60];
const CONNECTION_UNBLOCKED: [u8; 4] = [0, 10, 0, 61];
const BASIC_ACK: [u8; 4] = [0, 60, 0, 80];

/// A listener on loopback that passes everything on until it is told otherwise.
pub struct FrameProxy {
    /// The broker's URL, through this.
    pub url: String,
    control: watch::Sender<Control>,
    accepted: Arc<AtomicUsize>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Control {
    alarm: Option<String>,
    confirms: Confirms,
}

/// How confirms reach the client.
#[derive(Clone, Copy, Debug, Default)]
pub enum Confirms {
    /// As the broker sends them.
    #[default]
    AsSent,
    /// Kept until this many have come, then one by one with a pause before each, the newest first.
    Backwards {
        /// How many to keep.
        gather: usize,
        /// Before each.
        pause: Duration,
    },
}

impl FrameProxy {
    /// A proxy to where `url` points: `amqp://[user[:password]@]host:port[/…]`.
    pub async fn to_url(url: &str) -> Self {
        let mut through = url::Url::parse(url).expect("a URL");
        let host = through.host_str().expect("a host");
        let upstream = format!("{host}:{}", through.port().unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        through.set_host(Some("127.0.0.1")).expect("takes a host");
        through.set_port(Some(address.port())).expect("takes a port");
        let (control, seen) = watch::channel(Control::default());
        let accepted = Arc::new(AtomicUsize::new(0));
        let accepting = tokio::spawn(accept(listener, upstream, seen, Arc::clone(&accepted)));
        Self { url: through.into(), control, accepted, accepting }
    }

    /// Reads nothing more from the clients and tells them so, as the broker does when memory or disk
    /// run out.
    pub fn raise_alarm(&self, reason: &str) {
        self.control.send_modify(|control| control.alarm = Some(reason.to_owned()));
    }

    /// Ends [`raise_alarm`](Self::raise_alarm).
    pub fn end_alarm(&self) {
        self.control.send_modify(|control| control.alarm = None);
    }

    /// From now on.
    pub fn confirms(&self, confirms: Confirms) {
        self.control.send_modify(|control| control.confirms = confirms);
    }

    /// How many connections were made.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for FrameProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: String,
    control: watch::Receiver<Control>,
    accepted: Arc<AtomicUsize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::SeqCst);
        let (upstream, control) = (upstream.clone(), control.clone());
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(upstream).await else { return };
            client.set_nodelay(true).expect("TCP_NODELAY");
            server.set_nodelay(true).expect("TCP_NODELAY");
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            let (frames, arrived) = mpsc::channel(64);
            // Dropping the halves closes the sockets.
            tokio::select! {
                () = to_broker(from_client, to_server, control.clone()) => {}
                () = read(from_server, frames) => {}
                () = speak(to_client, arrived, control) => {}
            }
        });
    }
}

async fn to_broker(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut control: watch::Receiver<Control>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if control.wait_for(|control| control.alarm.is_none()).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn read(mut from: OwnedReadHalf, frames: mpsc::Sender<Vec<u8>>) {
    loop {
        let mut frame = vec![0; 7];
        if from.read_exact(&mut frame).await.is_err() {
            return;
        }
        let size = u32::from_be_bytes(frame[3..7].try_into().expect("four bytes")) as usize;
        frame.resize(7 + size + 1, 0);
        if from.read_exact(&mut frame[7..]).await.is_err() || frames.send(frame).await.is_err() {
            return;
        }
    }
}

async fn speak(
    mut to: OwnedWriteHalf,
    mut frames: mpsc::Receiver<Vec<u8>>,
    mut control: watch::Receiver<Control>,
) {
    let mut told = false;
    let mut kept = Kept::default();
    loop {
        let said = tokio::select! {
            biased;
            changed = control.changed() => match changed {
                Ok(()) => vec![],
                Err(_) => return,
            },
            frame = frames.recv() => match frame {
                Some(frame) => vec![frame],
                None => return,
            },
        };
        let Control { alarm, confirms } = control.borrow().clone();
        let mut out = Vec::new();
        match (&alarm, told) {
            (Some(reason), false) => out.push(blocked(reason)),
            (None, true) => out.push(method(0, &CONNECTION_UNBLOCKED, &[])),
            (Some(_), true) | (None, false) => {}
        }
        told = alarm.is_some();
        let mut pause = Duration::ZERO;
        for frame in said {
            match confirms {
                Confirms::Backwards { gather, pause: between } if kept.keep(&frame) => {
                    pause = between;
                    out.extend(kept.release(gather));
                }
                Confirms::AsSent | Confirms::Backwards { .. } => out.push(frame),
            }
        }
        for frame in out {
            tokio::time::sleep(pause).await;
            if to.write_all(&frame).await.is_err() {
                return;
            }
        }
    }
}

/// The confirms of one channel on their way.
#[derive(Default)]
struct Kept {
    channel: u16,
    /// Every tag that was ever confirmed.
    seen: BTreeSet<u64>,
    tags: BTreeSet<u64>,
}

impl Kept {
    /// Whether the frame was a confirm.
    fn keep(&mut self, frame: &[u8]) -> bool {
        if frame[0] != METHOD || frame[7..11] != BASIC_ACK {
            return false;
        }
        self.channel = u16::from_be_bytes([frame[1], frame[2]]);
        let tag = u64::from_be_bytes(frame[11..19].try_into().expect("eight bytes"));
        let first = if frame[19] & 1 == 1 { 1 } else { tag };
        let new = (first..=tag).filter(|tag| self.seen.insert(*tag));
        self.tags.extend(new);
        true
    }

    fn release(&mut self, gather: usize) -> Vec<Vec<u8>> {
        if self.tags.len() < gather {
            return vec![];
        }
        let tags = std::mem::take(&mut self.tags);
        let ack = |tag: u64| [&tag.to_be_bytes()[..], &[0]].concat();
        tags.into_iter().rev().map(|tag| method(self.channel, &BASIC_ACK, &ack(tag))).collect()
    }
}

fn blocked(reason: &str) -> Vec<u8> {
    let length = u8::try_from(reason.len()).expect("a short reason");
    method(0, &CONNECTION_BLOCKED, &[&[length], reason.as_bytes()].concat())
}

fn method(channel: u16, name: &[u8; 4], arguments: &[u8]) -> Vec<u8> {
    let size = u32::try_from(name.len() + arguments.len()).expect("a small frame");
    let mut frame = vec![METHOD];
    frame.extend(channel.to_be_bytes());
    frame.extend(size.to_be_bytes());
    frame.extend(name);
    frame.extend(arguments);
    frame.push(END);
    frame
}
