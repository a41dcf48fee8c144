//! The relay's metrics, by the `metrics` facade. Every name is here and in `docs/metrics.md`.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use outbox::reader::{Hold, HoldResult};

/// Handles made once: the facade looks a metric up by name on each call otherwise.
#[derive(Clone)]
pub(crate) struct Counters {
    read: Counter,
    confirmed: Counter,
    lag: Histogram,
    cursor: String,
}

/// How a session ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Shutdown,
    ShutdownForced,
    Drained,
    LeaseLost,
    LeaseExpired,
    Stalled,
    BrokerUnavailable,
    DatabaseUnavailable,
    Fatal,
}

impl Ended {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::ShutdownForced => "shutdown_forced",
            Self::Drained => "drained",
            Self::LeaseLost => "lease_lost",
            Self::LeaseExpired => "lease_expired",
            Self::Stalled => "stalled",
            Self::BrokerUnavailable => "broker_unavailable",
            Self::DatabaseUnavailable => "database_unavailable",
            Self::Fatal => "fatal",
        }
    }
}

impl Counters {
    pub(crate) fn new(cursor: &str) -> Self {
        let labels = [("cursor", cursor.to_owned())];
        Self {
            read: counter!("counterfoil_relay_read_total", &labels),
            confirmed: counter!("counterfoil_relay_confirmed_total", &labels),
            lag: histogram!("counterfoil_relay_commit_to_confirm_seconds", &labels),
            cursor: cursor.to_owned(),
        }
    }

    pub(crate) fn read(&self, rows: usize) {
        self.read.increment(rows as u64);
    }

    pub(crate) fn confirmed(&self, since_enqueue: Duration) {
        self.confirmed.increment(1);
        self.lag.record(since_enqueue.as_secs_f64());
    }

    pub(crate) fn held(&self, holds: &[Hold]) {
        for hold in holds {
            let reason = hold.reason.as_str();
            counter!("counterfoil_relay_held_total", "cursor" => self.cursor.clone(), "reason" => reason)
                .increment(1);
            match &hold.result {
                HoldResult::Dead { .. } => {
                    counter!("counterfoil_relay_dead_total", "cursor" => self.cursor.clone(), "reason" => reason)
                        .increment(1);
                    tracing::error!(
                        seq = hold.seq,
                        reason,
                        "message is dead and waits for an operator"
                    );
                }
                HoldResult::Again { attempts, error, .. } => {
                    tracing::warn!(
                        seq = hold.seq,
                        reason,
                        attempts,
                        error,
                        "message refused; held and tried again"
                    );
                }
                HoldResult::UntilDue | HoldResult::UntilFirst => {
                    tracing::debug!(seq = hold.seq, reason, "message held");
                }
            }
        }
    }

    /// So many were in flight when a session ended: they are published again.
    pub(crate) fn repeated(&self, messages: usize) {
        counter!("counterfoil_relay_repeated_total", "cursor" => self.cursor.clone())
            .increment(messages as u64);
    }

    /// So many rows were deleted from the log.
    pub(crate) fn purged(&self, rows: u64) {
        counter!("counterfoil_relay_purged_total", "cursor" => self.cursor.clone()).increment(rows);
    }

    pub(crate) fn session_ended(&self, how: Ended) {
        counter!("counterfoil_relay_sessions_total", "cursor" => self.cursor.clone(), "ended" => how.as_str())
            .increment(1);
    }
}
