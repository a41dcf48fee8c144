use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::ConfirmSelectOptions;
use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::uri::AMQPScheme;
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, ErrorKind, Event};

use super::address::Address;
use super::failure::{lost, within};
use super::socket::Socket;
use crate::{Unavailable, telemetry};

/// One live connection.
pub(super) struct Link {
    connection: Connection,
    socket: Socket,
    blocked: Arc<Mutex<String>>,
    watcher: tokio::task::JoinHandle<()>,
    deadline: Duration,
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
        let runtime = lapin::runtime::default_runtime().map_err(lost)?;
        let handle = socket.clone();
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
                    AMQPScheme::AMQPS => stream
                        .into_tls(&uri.authority.host, OwnedTLSConfig::default().as_ref())
                        .await
                        .map_err(io),
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
        let connection = opened.map_err(|error| refused(address, error))?;
        let blocked = Arc::new(Mutex::new(String::new()));
        let watcher = tokio::spawn(watch(connection.events_listener(), Arc::clone(&blocked), role));
        telemetry::connection_opened(role);
        tracing::info!(address = %address, role, "connected to the broker");
        Ok(Self { connection, socket, blocked, watcher, deadline: after })
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
        self.connection.status().blocked().then(|| lock(&self.blocked).clone())
    }

    /// Ends the connection at once. What the client still has queued is not sent any more.
    pub(super) fn cut(&self) {
        self.socket.cut();
    }

    /// A fresh channel: for one task, one subscription or one declaration. Never shared, because
    /// the client takes delivery tags and queues frames under two different locks.
    pub(super) async fn channel(&self) -> Result<Channel, Unavailable> {
        match within("open a channel", self.deadline, self.connection.create_channel()).await {
            Ok(channel) => channel.map_err(lost),
            Err(timeout) => {
                // A connection that cannot even open a channel is dead, whatever its state says.
                self.socket.cut();
                Err(timeout)
            }
        }
    }

    /// A fresh channel in confirm mode.
    pub(super) async fn confirming_channel(&self) -> Result<Channel, Unavailable> {
        let channel = self.channel().await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        within("confirm.select", self.deadline, select).await?.map_err(lost)?;
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

async fn watch(
    mut events: impl futures_util::Stream<Item = Event> + Send + Unpin,
    blocked: Arc<Mutex<String>>,
    role: &'static str,
) {
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(role, reason, "the broker blocks publishing");
                *lock(&blocked) = reason;
            }
            Event::ConnectionUnblocked => {
                tracing::info!(role, "the broker accepts publishing again")
            }
            Event::Error(error) if !error.is_amqp_soft_error() => {
                telemetry::connection_lost(role);
                tracing::warn!(role, %error, "lost the broker");
            }
            _ => {}
        }
    }
}

/// Broker says no to the login in several ways, some of them after closing the socket.
fn refused(address: &Address, error: lapin::Error) -> Unavailable {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) if matches!(amqp.get_id(), 403 | 530) => {
            Unavailable::LoginRefused {
                address: address.host(),
                user: address.user().to_owned(),
                vhost: address.vhost().to_owned(),
                reason: amqp.get_message().to_string(),
            }
        }
        ErrorKind::AuthProviderError(reason) => Unavailable::BadSettings { reason: reason.clone() },
        ErrorKind::InvalidProtocolVersion(version) => Unavailable::BadSettings {
            reason: format!(
                "the peer at {} speaks AMQP {version}, not 0-9-1; check the port",
                address.host()
            ),
        },
        _ => Unavailable::Unreachable { address: address.host(), source: error.into() },
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
