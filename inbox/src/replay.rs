use message::name;

use crate::Consumer;
use crate::incoming::Incoming;

/// What a replay may do with a handler. Every handler says it; there is no default, because the wrong
/// one sends a customer last year's e-mails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnReplay {
    /// The handler only writes through its transaction: a replay repairs what is missing and does no harm.
    ReplaySafe,
    /// The handler reaches the world outside (in [`Handler::prepare`](crate::Handler::prepare)), or
    /// what it writes does: a replay is parked for a decision, unless it was forced for this consumer
    /// by name.
    SideEffects,
}

impl OnReplay {
    /// As used as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReplaySafe => "replay_safe",
            Self::SideEffects => "side_effects",
        }
    }
}

/// A replay as its headers tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replayed<'a> {
    id: &'a str,
    forced: Option<&'a str>,
}

impl<'a> Replayed<'a> {
    /// `None` where the message comes for the first time.
    pub(crate) fn of(incoming: &'a Incoming) -> Option<Self> {
        let id = incoming.headers.get(name::REPLAY)?;
        Some(Self { id, forced: incoming.headers.get(name::REPLAY_FORCED) })
    }

    pub(crate) const fn id(self) -> &'a str {
        self.id
    }

    pub(crate) fn may_run(self, consumer: Consumer<'_>, handler: OnReplay) -> bool {
        match handler {
            OnReplay::ReplaySafe => true,
            OnReplay::SideEffects => self.forced == Some(consumer.0),
        }
    }
}
