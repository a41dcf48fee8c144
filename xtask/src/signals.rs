//! Ctrl-C, SIGTERM and SIGHUP are noted, not obeyed at once: services must be stopped first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The last stop signal received, if any.
#[derive(Clone)]
pub(crate) struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Registers the handlers for the whole process.
    pub(crate) fn listen() -> Result<Self> {
        let last = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let number = usize::try_from(signal).context("signal number")?;
            signal_hook::flag::register_usize(signal, Arc::clone(&last), number)
                .with_context(|| format!("cannot listen to signal {signal}"))?;
        }
        Ok(Self(last))
    }

    /// Number of the signal received last.
    pub(crate) fn received(&self) -> Option<i32> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            number => i32::try_from(number).ok(),
        }
    }

    /// Fails when a stop was asked for, so that long preparations end early.
    pub(crate) fn check(&self) -> Result<()> {
        match self.received() {
            Some(signal) => Err(Interrupted(signal).into()),
            None => Ok(()),
        }
    }
}

/// A stop signal ended the work.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) i32);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stopped by signal {}", self.0)
    }
}

impl std::error::Error for Interrupted {}
