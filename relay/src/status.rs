//! What a relay is doing at the moment, for health checks and tools.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use transport::Health;

/// A view of a running relay. Clones show the same relay; reading it asks neither database nor broker.
#[derive(Clone, Debug)]
pub struct Status(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    phase: Phase,
    circuit: Circuit,
    paused: Option<String>,
    broker: Health,
    last_error: Option<String>,
    in_flight: usize,
    held: u64,
    /// When the loop last turned.
    turned: Instant,
    /// When something in flight was last settled, or nothing was in flight.
    progressed: Instant,
}

/// What the relay is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not yet holder, and not known to be standby: it connects, or waits to connect again.
    Connecting,
    /// Another relay holds the cursor.
    Standby {
        /// Who.
        owner: String,
    },
    /// It holds the cursor.
    Active {
        /// The lease's epoch.
        epoch: i64,
    },
    /// Asked to stop; what is in flight is being settled.
    Stopping,
    /// [`Relay::run`](crate::Relay::run) has returned.
    Stopped,
}

/// Whether new messages are handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// They are.
    Closed,
    /// Not for the moment: too large a share of them was refused. Held ones are tried on.
    OpenRefused,
    /// Not for the moment: too many are held.
    OpenHolds,
    /// A few are, to see whether they are still refused.
    HalfOpen,
}

impl Circuit {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Closed, Self::OpenRefused, Self::OpenHolds, Self::HalfOpen];

    /// As a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::OpenRefused => "open_refused",
            Self::OpenHolds => "open_holds",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What [`Status::report`] tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What the relay is at.
    pub phase: Phase,
    /// Whether new messages are handed on.
    pub circuit: Circuit,
    /// Why an operator paused the cursor, if one did.
    pub paused: Option<String>,
    /// The connection to the broker, as last known.
    pub broker: Health,
    /// What last ended a session or kept one from starting, until the next one works.
    pub last_error: Option<String>,
    /// Messages read and not yet settled.
    pub in_flight: usize,
    /// Messages held, those that only wait for their time or behind another of their key not counted,
    /// as far as this holder knows.
    pub held: u64,
    /// How long ago the loop last turned. It turns at least once a second; much more means that the
    /// process is stuck.
    pub since_turn: Duration,
    /// How long messages have been in flight without any of them being settled; zero when none are.
    pub since_progress: Duration,
}

impl Default for Status {
    fn default() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(State {
            phase: Phase::Connecting,
            circuit: Circuit::Closed,
            paused: None,
            broker: Health::Disconnected,
            last_error: None,
            in_flight: 0,
            held: 0,
            turned: now,
            progressed: now,
        })))
    }
}

impl Status {
    /// How it stands now.
    #[must_use]
    pub fn report(&self) -> Report {
        let state = self.lock();
        let since_progress =
            if state.in_flight == 0 { Duration::ZERO } else { state.progressed.elapsed() };
        Report {
            phase: state.phase.clone(),
            circuit: state.circuit,
            paused: state.paused.clone(),
            broker: state.broker.clone(),
            last_error: state.last_error.clone(),
            in_flight: state.in_flight,
            held: state.held,
            since_turn: state.turned.elapsed(),
            since_progress,
        }
    }

    /// The loop turns.
    pub(crate) fn turned(&self) {
        self.lock().turned = Instant::now();
    }

    /// Something in flight was settled.
    pub(crate) fn progressed(&self) {
        self.lock().progressed = Instant::now();
    }

    /// So many messages are in flight now.
    pub(crate) fn in_flight(&self, messages: usize) {
        let mut state = self.lock();
        if state.in_flight == 0 {
            state.progressed = Instant::now();
        }
        state.in_flight = messages;
    }

    pub(crate) fn phase(&self, phase: Phase) {
        let mut state = self.lock();
        if matches!(phase, Phase::Active { .. } | Phase::Standby { .. }) {
            state.last_error = None;
        }
        state.phase = phase;
    }

    pub(crate) fn broker(&self, broker: Health) {
        self.lock().broker = broker;
    }

    pub(crate) fn circuit(&self, circuit: Circuit) {
        self.lock().circuit = circuit;
    }

    pub(crate) fn paused(&self, reason: Option<String>) {
        self.lock().paused = reason;
    }

    pub(crate) fn held(&self, held: u64) {
        self.lock().held = held;
    }

    pub(crate) fn failed(&self, error: &dyn std::fmt::Display) {
        self.lock().last_error = Some(error.to_string());
    }

    /// A session has ended: nothing of it is in flight, and what it knew is not known any more.
    pub(crate) fn session_ended(&self) {
        let mut state = self.lock();
        state.in_flight = 0;
        state.circuit = Circuit::Closed;
        state.paused = None;
        state.phase = Phase::Connecting;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole whatever a panicking holder was about to do: each field stands alone.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
