use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// The caller's shutdown signal, which can be waited for again after it came.
pub(crate) struct Shutdown<F> {
    signal: Pin<Box<F>>,
    came: bool,
}

impl<F: Future<Output = ()>> Shutdown<F> {
    pub(crate) fn on(signal: F) -> Self {
        Self { signal: Box::pin(signal), came: false }
    }

    /// Returns once shutdown was asked for, now or earlier. Dropping it in the middle loses nothing.
    pub(crate) async fn asked(&mut self) {
        if !self.came {
            self.signal.as_mut().await;
            self.came = true;
        }
    }

    /// Waits that long, or until shutdown is asked for; whether it was.
    pub(crate) async fn within(&mut self, wait: Duration) -> bool {
        tokio::time::timeout(wait, self.asked()).await.is_ok()
    }
}
