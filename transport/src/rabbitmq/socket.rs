use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A second handle on a connection's socket, to end it when the peer no longer answers: the client
/// offers no way to close without the peer's consent.
#[derive(Clone, Default)]
pub(super) struct Socket(Arc<Mutex<Option<TcpStream>>>);

impl Socket {
    #[cfg(unix)]
    pub(super) fn hold(&self, stream: &tokio::net::TcpStream) {
        use std::os::fd::AsFd;
        self.set(stream.as_fd().try_clone_to_owned().map(TcpStream::from));
    }

    #[cfg(windows)]
    pub(super) fn hold(&self, stream: &tokio::net::TcpStream) {
        use std::os::windows::io::AsSocket;
        self.set(stream.as_socket().try_clone_to_owned().map(TcpStream::from));
    }

    // Without a second handle the operating system's own timeouts end the socket, only later.
    fn set(&self, handle: std::io::Result<TcpStream>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = handle.ok();
    }

    /// Ends the socket at once, in both directions.
    pub(super) fn cut(&self) {
        if let Some(stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It may be closed already, which is what is wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends the socket unless the peer has closed it by then.
    pub(super) fn cut_after(&self, grace: Duration) {
        let socket = self.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    tokio::time::sleep(grace).await;
                    socket.cut();
                });
            }
            Err(_) => socket.cut(),
        }
    }
}
