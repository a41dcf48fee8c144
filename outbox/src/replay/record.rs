use std::time::SystemTime;

use super::Selection;
use crate::admin::Holder;

/// A replay as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayInfo {
    /// Its number.
    pub id: i64,
    /// The consumer.
    pub consumer: String,
    /// Its queue.
    pub queue: String,
    /// Whether handlers with side effects may run.
    pub forced: bool,
    /// What it sends.
    pub selection: Selection,
    /// Messages a second.
    pub rate: u32,
    /// The first place the log had at the start.
    pub first_kept: i64,
    /// Messages counted at the start. What was still being written then can come on top.
    pub total: u64,
    /// Messages confirmed.
    pub sent: u64,
    /// Messages that no broker takes.
    pub unsendable: u64,
    /// Everything selected up to here is settled.
    pub position: i64,
    /// The last place to send.
    pub last_seq: i64,
    /// How it stands.
    pub state: ReplayState,
    /// Why it failed; empty where it did not.
    pub last_error: String,
    /// Who works on it, or did without giving it up.
    pub holder: Option<Holder>,
    /// Who gave the order.
    pub actor: String,
    /// The database role that carried it out; empty on SQLite.
    pub role: String,
    /// Why.
    pub reason: String,
    /// When it was started, by the database's clock.
    pub started_at: SystemTime,
    /// When it moved last.
    pub updated_at: SystemTime,
    /// When it ended.
    pub finished_at: Option<SystemTime>,
}

impl ReplayInfo {
    /// Messages that were counted and are gone: retention deleted them before they could be sent.
    /// 0 before it is done.
    #[must_use]
    pub fn deleted_meanwhile(&self) -> u64 {
        match self.state {
            ReplayState::Done => self.total.saturating_sub(self.sent + self.unsendable),
            ReplayState::Running | ReplayState::Failed | ReplayState::Cancelled => 0,
        }
    }
}

/// How a replay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayState {
    /// Under way, or interrupted: then nobody holds it, and it can be resumed.
    Running,
    /// Everything selected is settled.
    Done,
    /// It could not go on. It can be resumed.
    Failed,
    /// Given up by an operator.
    Cancelled,
}

impl ReplayState {
    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads what is stored.
    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        let all = [Self::Running, Self::Done, Self::Failed, Self::Cancelled];
        all.into_iter().find(|state| state.as_str() == text)
    }
}
