use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use relay::telemetry::{self, broker_state};
use relay::{Circuit, Phase, Report, Status};
use serde_json::{Value, json};

/// What is known of the relay's health, without asking database or broker.
pub(crate) struct Health {
    cursor: String,
    stuck_after: Duration,
    status: OnceLock<Status>,
    /// Why there is no status yet.
    starting: Mutex<String>,
}

impl Health {
    pub(crate) fn new(cursor: String, stuck_after: Duration) -> Self {
        let starting = Mutex::new("connecting to the database".to_owned());
        Self { cursor, stuck_after, status: OnceLock::new(), starting }
    }

    /// Why the relay has not begun yet.
    pub(crate) fn starting(&self, why: String) {
        *self.starting.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// The relay has begun.
    pub(crate) fn started(&self, status: Status) {
        let _ = self.status.set(status);
    }

    pub(crate) fn report(&self) -> Option<Report> {
        self.status.get().map(Status::report)
    }

    /// Whether the process does anything at all. When not, only a restart helps.
    pub(crate) fn live(&self) -> (bool, Value) {
        let why = self.report().map(|report| self.stuck(&report)).unwrap_or_default();
        (why.is_empty(), json!({ "live": why.is_empty(), "why": why }))
    }

    fn stuck(&self, report: &Report) -> Vec<String> {
        let mut why = Vec::new();
        if report.since_turn > self.stuck_after {
            why.push(format!(
                "the relay's loop has not turned for {:?}",
                seconds(report.since_turn)
            ));
        }
        // A broker that says it takes nothing is waited for: a new process would wait as well, and repeat
        // what is in flight.
        let blocked = matches!(report.broker, transport::Health::Blocked { .. });
        if report.since_progress > self.stuck_after && !blocked {
            why.push(format!(
                "{} messages are in flight and none was settled for {:?}",
                report.in_flight,
                seconds(report.since_progress)
            ));
        }
        why
    }

    /// Whether the relay does its part, as holder or as standby, and what is amiss all the same.
    pub(crate) fn ready(&self, figures: Option<telemetry::Figures>) -> (bool, Value) {
        let Some(report) = self.report() else {
            let why = self.starting.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let body = json!({
                "ready": false, "cursor": self.cursor, "phase": "connecting", "degraded": [why],
            });
            return (false, body);
        };
        let (phase, in_service) = match &report.phase {
            Phase::Connecting => ("connecting", false),
            Phase::Standby { .. } => ("standby", true),
            Phase::Active { .. } => ("active", true),
            Phase::Stopping => ("stopping", false),
            Phase::Stopped => ("stopped", false),
        };
        let dead = figures.map(|figures| self.dead(&figures));
        let stuck = self.stuck(&report);
        let ready = in_service && stuck.is_empty();
        let mut degraded = stuck;
        degraded.extend(amiss(&report, dead));
        let epoch = match &report.phase {
            Phase::Active { epoch } => Some(*epoch),
            Phase::Connecting | Phase::Standby { .. } | Phase::Stopping | Phase::Stopped => None,
        };
        let holder = match &report.phase {
            Phase::Standby { owner } => Some(owner.clone()),
            Phase::Connecting | Phase::Active { .. } | Phase::Stopping | Phase::Stopped => None,
        };
        let body = json!({
            "ready": ready, "cursor": self.cursor, "phase": phase, "epoch": epoch, "holder": holder,
            "circuit": report.circuit.as_str(), "paused": report.paused, "broker": broker_state(&report.broker),
            "in_flight": report.in_flight, "dead": dead, "last_error": report.last_error, "degraded": degraded,
        });
        (ready, body)
    }

    fn dead(&self, figures: &telemetry::Figures) -> i64 {
        let ours = figures.holds.iter().filter(|group| group.cursor == self.cursor);
        ours.filter(|group| group.state == "dead").map(|group| group.count).sum()
    }
}

/// What an operator would want to know of a relay that works.
fn amiss(report: &Report, dead: Option<i64>) -> Vec<String> {
    let mut amiss = Vec::new();
    match report.circuit {
        Circuit::Closed => {}
        Circuit::OpenRefused => {
            amiss.push(
                "reading is paused: too large a share of the messages was refused".to_owned(),
            );
        }
        Circuit::OpenHolds => {
            amiss.push("reading is paused: too many messages are held".to_owned())
        }
        Circuit::HalfOpen => {
            amiss.push("a few messages are sent to see whether they are still refused".to_owned());
        }
    }
    if let Some(reason) = &report.paused {
        amiss.push(format!("paused by an operator: {reason}; `relay resume` ends it"));
    }
    if let transport::Health::Blocked { reason } = &report.broker {
        amiss.push(format!("the broker takes nothing: {reason}; free memory or disk there"));
    }
    if let Some(dead) = dead.filter(|dead| *dead > 0) {
        amiss.push(format!(
            "{dead} dead messages wait for an operator: `relay holds list --state dead`"
        ));
    }
    if let Some(error) = &report.last_error {
        amiss.push(error.clone());
    }
    amiss
}

fn seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}
