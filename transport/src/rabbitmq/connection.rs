use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::ConfirmSelectOptions;
use lapin::tcp::AMQPUriTcpExt;
use lapin::uri::AMQPScheme;
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio::time::Instant;

use super::address::Address;
use super::failure::{lost, within};
use super::patience::{Flow, Patience};
use super::refused::refused;
use super::socket::Socket;
#[cfg(feature = "tls")]
use super::tls::BadFiles;
use crate::{Unavailable, telemetry};

/// One live connection.
pub(super) struct Link {
    connection: Connection,
    socket: Socket,
    flow: watch::Receiver<Flow>,
    watcher: tokio::task::JoinHandle<()>,
    deadline: Duration,
    blocked_timeout: Duration,
}

impl Link {
    /// The client's own recovery stays off: it keeps confirms pending for the whole outage and never
    /// sends anything again, so the outcome of a batch would stay open for minutes.
    pub(super) async fn open(
        address: &Address,
        name: &str,
        role: &'static str,
    ) -> Result<Self, Unavailable> {
        let after = address.connect_timeout();
        let properties =
            ConnectionProperties::default().with_connection_name(format!("{name}-{role}").into());
        let socket = Socket::default();
        let secure = Arc::new(AtomicBool::new(false));
        let runtime = lapin::runtime::default_runtime().map_err(lost)?;
        let handle = socket.clone();
        #[cfg(feature = "tls")]
        let (tls, secured) = (address.tls().clone(), Arc::clone(&secure));
        let connecting = Connection::connector(
            address.uri(),
            runtime,
            async move |uri, runtime| {
                let io = |error: std::io::Error| lapin::Error::from(error);
                let mut plain = uri.clone();
                plain.scheme = AMQPScheme::AMQP;
                // The client dials on a thread of its own, which our deadline outside does not end.
                let stream = tokio::time::timeout(after, plain.connect_async(&runtime))
                    .await
                    .map_err(|_| io(std::io::ErrorKind::TimedOut.into()))?
                    .map_err(io)?;
                if let AsyncTcpStream::Plain(stream) = &stream {
                    handle.hold(stream.get_ref());
                }
                match uri.scheme {
                    AMQPScheme::AMQP => Ok(stream),
                    #[cfg(feature = "tls")]
                    AMQPScheme::AMQPS => {
                        let connector = tls
                            .connector()
                            .map_err(|reason| io(std::io::Error::other(BadFiles(reason))))?;
                        let host = &uri.authority.host;
                        let stream = stream.into_rustls(&connector, host).await.map_err(io)?;
                        secured.store(true, Ordering::Relaxed);
                        Ok(stream)
                    }
                    #[cfg(not(feature = "tls"))]
                    AMQPScheme::AMQPS => Err(io(std::io::ErrorKind::Unsupported.into())),
                }
            },
            properties,
        );
        let opened = match within("connect", after, connecting).await {
            Ok(opened) => opened,
            Err(timeout) => {
                // A peer that accepts and stays silent would keep the client's thread for ever.
                socket.cut();
                return Err(timeout);
            }
        };
        let secure = secure.load(Ordering::Relaxed);
        let connection = opened.map_err(|error| refused(address, secure, error))?;
        let (flow, seen) = watch::channel(Flow::open());
        let watcher = tokio::spawn(listen(connection.events_listener(), flow, role));
        telemetry::connection_opened(role);
        tracing::info!(address = %address, role, "connected to the broker");
        let blocked_timeout = address.blocked_timeout();
        Ok(Self { connection, socket, flow: seen, watcher, deadline: after, blocked_timeout })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    pub(super) fn frame_max(&self) -> u32 {
        self.connection.configuration().frame_max()
    }

    /// Longest wait for a single request.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(super) fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.connection.configuration().heartbeat().into())
    }

    /// What the broker gave as the reason, if it takes nothing on this connection.
    pub(super) fn blocked(&self) -> Option<String> {
        self.flow.borrow().blocked().map(str::to_owned)
    }

    /// A deadline for a row of answers on this connection.
    pub(super) fn patience(&self, step: &'static str, after: Duration) -> Patience {
        Patience::new(step, after, self.blocked_timeout, self.flow.clone())
    }

    /// One request under the deadline for single requests. A blocked connection answers none of them
    /// either: the client writes nothing on it.
    pub(super) async fn ask<T>(
        &self,
        step: &'static str,
        request: impl Future<Output = Result<T, lapin::Error>>,
    ) -> Result<Result<T, lapin::Error>, Unavailable> {
        self.patience(step, self.deadline).wait(request).await
    }

    /// Ends the connection at once. What the client still has queued is not sent any more.
    pub(super) fn cut(&self) {
        self.socket.cut();
    }

    /// A fresh channel: for one task, one subscription or one declaration. Never shared, because
    /// the client takes delivery tags and queues frames under two different locks.
    pub(super) async fn channel(&self) -> Result<Channel, Unavailable> {
        match self.ask("open a channel", self.connection.create_channel()).await {
            Ok(channel) => channel.map_err(lost),
            Err(unavailable) => {
                // A connection that cannot even open a channel is dead, whatever its state says.
                self.socket.cut();
                Err(unavailable)
            }
        }
    }

    /// A fresh channel in confirm mode.
    pub(super) async fn confirming_channel(&self) -> Result<Channel, Unavailable> {
        let channel = self.channel().await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        self.ask("confirm.select", select).await?.map_err(lost)?;
        Ok(channel)
    }

    pub(super) async fn close(&self) {
        let goodbye = self.connection.close(200, "OK".into());
        if !matches!(tokio::time::timeout(self.deadline, goodbye).await, Ok(Ok(()))) {
            self.socket.cut();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.watcher.abort();
        // Dropping the client's connection starts its closing handshake, in which it watches no
        // heartbeat any more: against a dead peer its thread would stay.
        self.socket.cut_after(self.deadline);
    }
}

async fn listen(
    mut events: impl futures_util::Stream<Item = Event> + Send + Unpin,
    flow: watch::Sender<Flow>,
    role: &'static str,
) {
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(role, reason, "the broker blocks publishing");
                // Said again for a second alarm: it is the same time that nothing is taken.
                let since = match &*flow.borrow() {
                    Flow::Blocked(since, _) => *since,
                    Flow::Open(_) => Instant::now(),
                };
                flow.send_replace(Flow::Blocked(since, reason));
            }
            Event::ConnectionUnblocked => {
                tracing::info!(role, "the broker accepts publishing again");
                flow.send_replace(Flow::open());
            }
            Event::Error(error) if !error.is_amqp_soft_error() => {
                telemetry::connection_lost(role);
                tracing::warn!(role, %error, "lost the broker");
            }
            _ => {}
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
