//! The relay's metrics, by the `metrics` facade. Every name is here and in `docs/metrics.md`. All
//! carry the label `cursor`, and none a key, a kind or an id.
//!
//! Counters and the histogram are the engine's. Gauges are set by whoever serves them, at the moment
//! they are asked for: see [`Gauges`].

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use outbox::admin::{Backlog, HoldCount, Vitals};
use outbox::reader::{Hold, HoldReason, HoldResult};
use transport::Health;

use crate::ended::Ended;
use crate::status::{Circuit, Phase, Report};

/// Rows read from the log.
pub const READ: &str = "counterfoil_relay_read_total";
/// Messages the broker confirmed.
pub const CONFIRMED: &str = "counterfoil_relay_confirmed_total";
/// Messages the broker returned as unroutable.
pub const RETURNED: &str = "counterfoil_relay_returned_total";
/// Messages a queue refused.
pub const NACKED: &str = "counterfoil_relay_nacked_total";
/// Messages recorded as held; label `reason`.
pub const HELD: &str = "counterfoil_relay_held_total";
/// Messages that became dead; label `reason`.
pub const DEAD: &str = "counterfoil_relay_dead_total";
/// Messages in flight with an unknown outcome when a term ended: they are published again.
pub const REPEATED: &str = "counterfoil_relay_repeated_total";
/// Rows deleted from the log when their time was over.
pub const PURGED: &str = "counterfoil_relay_purged_total";
/// Leases that ended under their holder.
pub const LEASE_LOST: &str = "counterfoil_relay_lease_lost_total";
/// Terms as holder that have ended; label `ended`.
pub const SESSIONS: &str = "counterfoil_relay_sessions_total";
/// Times that a sleeping relay was told of a commit.
pub const WOKEN: &str = "counterfoil_relay_woken_total";
/// Connections lost, or not to be had, on which the relay is told of commits.
pub const LISTENERS_LOST: &str = "counterfoil_relay_listeners_lost_total";
/// Seconds from a row's `created_at` to the handling of its confirm.
pub const COMMIT_TO_CONFIRM: &str = "counterfoil_relay_commit_to_confirm_seconds";
/// Whether this process holds the cursor.
pub const ACTIVE: &str = "counterfoil_relay_active";
/// Whether an operator paused the cursor.
pub const PAUSED: &str = "counterfoil_relay_paused";
/// Which state the circuit is in; label `state`.
pub const CIRCUIT: &str = "counterfoil_relay_circuit";
/// Which state the connection to the broker is in; label `state`.
pub const BROKER: &str = "counterfoil_relay_broker";
/// Messages read and not settled.
pub const IN_FLIGHT: &str = "counterfoil_relay_in_flight";
/// Messages committed and not handed on.
pub const BACKLOG: &str = "counterfoil_relay_backlog_messages";
/// How long the first of them has waited.
pub const OLDEST_PENDING: &str = "counterfoil_relay_oldest_pending_seconds";
/// Messages held; labels `state`, `reason`.
pub const HOLDS: &str = "counterfoil_relay_holds";
/// How long the transaction that holds back vacuum most has been open.
pub const OLDEST_XMIN: &str = "counterfoil_relay_oldest_xmin_seconds";
/// How many transactions began since.
pub const OLDEST_XMIN_TRANSACTIONS: &str = "counterfoil_relay_oldest_xmin_transactions";
/// Dead rows of the outbox tables; label `table`.
pub const DEAD_TUPLES: &str = "counterfoil_relay_dead_tuples";
/// How old the figures are that come from the database.
pub const FIGURES_AGE: &str = "counterfoil_relay_figures_age_seconds";

/// Says to the recorder what each metric means. Call it once, after the recorder is installed.
pub fn describe() {
    describe_counter!(READ, "Rows read from the log");
    describe_counter!(CONFIRMED, "Messages the broker confirmed");
    describe_counter!(RETURNED, "Messages the broker returned as unroutable");
    describe_counter!(NACKED, "Messages a queue refused");
    describe_counter!(HELD, "Messages recorded as held, each time");
    describe_counter!(DEAD, "Messages that became dead");
    describe_counter!(REPEATED, "Messages published again because their outcome was unknown");
    describe_counter!(PURGED, "Rows deleted from the log when their time was over");
    describe_counter!(LEASE_LOST, "Leases that ended under their holder");
    describe_counter!(SESSIONS, "Terms as holder of the cursor that have ended");
    describe_counter!(WOKEN, "Times that a sleeping relay was told of a commit");
    describe_counter!(LISTENERS_LOST, "Connections lost on which commits are told");
    describe_histogram!(COMMIT_TO_CONFIRM, "Seconds from created_at to the confirm");
    describe_gauge!(ACTIVE, "1 while this process holds the cursor");
    describe_gauge!(PAUSED, "1 while an operator has paused the cursor");
    describe_gauge!(CIRCUIT, "1 for the state the circuit is in");
    describe_gauge!(BROKER, "1 for the state the connection to the broker is in");
    describe_gauge!(IN_FLIGHT, "Messages read and not settled");
    describe_gauge!(BACKLOG, "Messages committed and not handed on, counted up to a bound");
    describe_gauge!(OLDEST_PENDING, "Seconds the first of them has waited");
    describe_gauge!(HOLDS, "Messages held");
    describe_gauge!(OLDEST_XMIN, "Seconds the transaction that holds back vacuum most is open");
    describe_gauge!(OLDEST_XMIN_TRANSACTIONS, "Transactions begun since the one vacuum waits for");
    describe_gauge!(DEAD_TUPLES, "Dead rows, as the server estimates");
    describe_gauge!(FIGURES_AGE, "Seconds since the database's figures were read");
}

/// Handles made once: the facade looks a metric up by name on each call otherwise. Each series is
/// there, at zero, from the start, so that its first increase is seen as one.
#[derive(Clone)]
pub(crate) struct Counters {
    read: Counter,
    confirmed: Counter,
    returned: Counter,
    nacked: Counter,
    repeated: Counter,
    purged: Counter,
    lease_lost: Counter,
    woken: Counter,
    listeners_lost: Counter,
    held: [Counter; HoldReason::ALL.len()],
    dead: [Counter; HoldReason::ALL.len()],
    sessions: [Counter; Ended::ALL.len()],
    lag: Histogram,
}

impl Counters {
    pub(crate) fn new(cursor: &str) -> Self {
        let named = |name| counter!(name, "cursor" => cursor.to_owned());
        let by_reason = |name| {
            HoldReason::ALL.map(
                |reason| counter!(name, "cursor" => cursor.to_owned(), "reason" => reason.as_str()),
            )
        };
        Self {
            read: named(READ),
            confirmed: named(CONFIRMED),
            returned: named(RETURNED),
            nacked: named(NACKED),
            repeated: named(REPEATED),
            purged: named(PURGED),
            lease_lost: named(LEASE_LOST),
            woken: named(WOKEN),
            listeners_lost: named(LISTENERS_LOST),
            held: by_reason(HELD),
            dead: by_reason(DEAD),
            sessions: Ended::ALL.map(
                |ended| counter!(SESSIONS, "cursor" => cursor.to_owned(), "ended" => ended.as_str()),
            ),
            lag: histogram!(COMMIT_TO_CONFIRM, "cursor" => cursor.to_owned()),
        }
    }

    pub(crate) fn read(&self, rows: usize) {
        self.read.increment(rows as u64);
    }

    pub(crate) fn confirmed(&self, since_enqueue: Duration) {
        self.confirmed.increment(1);
        self.lag.record(since_enqueue.as_secs_f64());
    }

    /// Messages that were in flight, with an outcome nobody knows, when a session ended.
    pub(crate) fn repeated(&self, messages: u64) {
        self.repeated.increment(messages);
    }

    /// So many rows were deleted from the log.
    pub(crate) fn purged(&self, rows: u64) {
        self.purged.increment(rows);
    }

    pub(crate) fn held(&self, holds: &[Hold]) {
        for hold in holds {
            add(&self.held, &HoldReason::ALL, hold.reason);
            let reason = hold.reason.as_str();
            match &hold.result {
                HoldResult::Dead { .. } => {
                    self.refused(hold.reason);
                    add(&self.dead, &HoldReason::ALL, hold.reason);
                    tracing::error!(
                        seq = hold.seq,
                        reason,
                        "message is dead and waits for an operator"
                    );
                }
                HoldResult::Again { attempts: 1, error, .. } => {
                    self.refused(hold.reason);
                    tracing::warn!(
                        seq = hold.seq,
                        reason,
                        error,
                        "message refused; held and tried again"
                    );
                }
                // Said once: a full queue would fill the log with every attempt.
                HoldResult::Again { attempts, error, .. } => {
                    self.refused(hold.reason);
                    tracing::debug!(
                        seq = hold.seq,
                        reason,
                        attempts,
                        error,
                        "message refused again"
                    );
                }
                HoldResult::UntilDue | HoldResult::UntilFirst => {
                    tracing::debug!(seq = hold.seq, reason, "message held");
                }
            }
        }
    }

    fn refused(&self, reason: HoldReason) {
        if reason == HoldReason::Unroutable {
            self.returned.increment(1);
        }
        if reason == HoldReason::Nacked {
            self.nacked.increment(1);
        }
    }

    /// A sleeping relay was told of a commit.
    pub(crate) fn woken(&self) {
        self.woken.increment(1);
    }

    /// The connection on which commits are told was lost, or could not be made.
    pub(crate) fn listener_lost(&self) {
        self.listeners_lost.increment(1);
    }

    pub(crate) fn session_ended(&self, how: Ended) {
        add(&self.sessions, &Ended::ALL, how);
        if matches!(how, Ended::LeaseLost | Ended::LeaseExpired) {
            self.lease_lost.increment(1);
        }
    }
}

fn add<T: PartialEq>(counters: &[Counter], labels: &[T], label: T) {
    if let Some(at) = labels.iter().position(|candidate| *candidate == label) {
        counters[at].increment(1);
    }
}

/// The figures of one cursor that come from the database.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How far the cursor is behind.
    pub backlog: Backlog,
    /// What is held; other cursors' counts are passed over.
    pub holds: Vec<HoldCount>,
    /// The database's own state.
    pub vitals: Vitals,
}

/// Sets the gauges of one cursor.
#[derive(Clone, Debug)]
pub struct Gauges {
    cursor: String,
}

impl Gauges {
    /// The gauges of `cursor`.
    pub fn of(cursor: impl Into<String>) -> Self {
        Self { cursor: cursor.into() }
    }

    /// What the relay itself knows.
    pub fn relay(&self, report: &Report) {
        let bit = |on: bool| if on { 1.0 } else { 0.0 };
        self.gauge(ACTIVE).set(bit(matches!(report.phase, Phase::Active { .. })));
        self.gauge(PAUSED).set(bit(report.paused.is_some()));
        self.gauge(IN_FLIGHT).set(report.in_flight as f64);
        for state in Circuit::ALL {
            self.with(CIRCUIT, "state", state.as_str()).set(bit(report.circuit == state));
        }
        let broker = broker_state(&report.broker);
        for state in ["connected", "blocked", "disconnected"] {
            self.with(BROKER, "state", state).set(bit(broker == state));
        }
    }

    /// What was read from the database, so long ago.
    pub fn database(&self, figures: &Figures, age: Duration) {
        let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64();
        self.gauge(BACKLOG).set(figures.backlog.messages as f64);
        self.gauge(OLDEST_PENDING).set(seconds(figures.backlog.oldest));
        for (state, reason) in HoldReason::ALL
            .into_iter()
            .flat_map(|reason| ["waiting", "dead"].map(|state| (state, reason.as_str())))
        {
            let alike = figures.holds.iter().filter(|group| {
                group.cursor == self.cursor && group.state == state && group.reason == reason
            });
            let count: i64 = alike.map(|group| group.count).sum();
            gauge!(HOLDS, "cursor" => self.cursor.clone(), "state" => state, "reason" => reason)
                .set(count as f64);
        }
        let xmin = figures.vitals.oldest_xmin.as_ref();
        self.gauge(OLDEST_XMIN).set(seconds(xmin.and_then(|holder| holder.open)));
        let since = xmin.map_or(0, |holder| holder.transactions);
        self.gauge(OLDEST_XMIN_TRANSACTIONS).set(since as f64);
        for table in &figures.vitals.dead_tuples {
            gauge!(DEAD_TUPLES, "cursor" => self.cursor.clone(), "table" => table.table.clone())
                .set(table.dead as f64);
        }
        self.gauge(FIGURES_AGE).set(age.as_secs_f64());
    }

    fn gauge(&self, name: &'static str) -> Gauge {
        gauge!(name, "cursor" => self.cursor.clone())
    }

    fn with(&self, name: &'static str, label: &'static str, value: &'static str) -> Gauge {
        gauge!(name, "cursor" => self.cursor.clone(), label => value)
    }
}

/// The state of the connection, as a label.
#[must_use]
pub const fn broker_state(health: &Health) -> &'static str {
    match health {
        Health::Connected => "connected",
        Health::Blocked { .. } => "blocked",
        Health::Disconnected => "disconnected",
    }
}
