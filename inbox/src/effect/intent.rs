use std::time::Duration;

use message::Fingerprint;

use super::{Policy, ProviderKey, Settings};
use crate::store::micros;

/// What an effect is wanted for.
#[derive(Clone, Debug)]
pub(crate) struct Intent {
    pub(crate) effect: String,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) policy: Policy,
    /// Whether whoever wants it can ask the provider by itself.
    pub(crate) asks: bool,
    pub(crate) deadline: Duration,
    pub(crate) owner: String,
}

/// The right to report how an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) id: i64,
    pub(crate) epoch: i64,
    pub(crate) key: ProviderKey,
    /// What is asked for; another attempt can ask for something else.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// What is to be done about an effect that somebody wants performed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// Call, and report.
    Call(Ticket),
    /// It was performed before.
    Done(Option<String>),
    /// It was refused before, or called off.
    Refused(String),
    /// A call is under way, or may be for so long.
    UnderWay(Duration),
    /// Ask the provider, and report.
    Ask(Ticket),
    /// Unknown; the provider is asked in so long.
    Waits(Duration),
    /// Unknown; a person decides.
    Review,
    /// The same effect of the same operation with another request.
    Conflict,
}

/// Longer than the call can take, by as much as a request may still be on its way.
pub(crate) fn lease(intent: &Intent, settings: &Settings) -> i64 {
    micros(intent.deadline.saturating_add(settings.grace))
}
