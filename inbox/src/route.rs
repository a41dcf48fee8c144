use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use message::{Event, Fingerprint, OperationKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ending::Reason;
use crate::handler::{Applied, Handled, Handler, Work};
use crate::incoming::Incoming;
use crate::unit::usable;
use crate::{Context, Failure, OnReplay};

/// Names the operation of a foreign producer's message.
pub(crate) type KeyFn = Box<dyn Fn(&Incoming) -> Option<OperationKey> + Send + Sync>;

type Make<C, E> = Box<dyn Fn(E) -> Box<dyn Work<C>> + Send + Sync>;

/// A message made ready to be applied.
pub(crate) struct Job<C> {
    pub(crate) operation: OperationKey,
    pub(crate) fingerprint: Fingerprint,
    /// The event's own, for a producer that sends none.
    pub(crate) ordering_key: Option<String>,
    pub(crate) on_replay: OnReplay,
    pub(crate) generation: u32,
    pub(crate) work: Box<dyn Work<C>>,
}

/// Why a message cannot be applied by any number of attempts.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// The handlers by kind.
pub(crate) struct Routes<C> {
    pub(crate) by_kind: HashMap<&'static str, Box<dyn Route<C>>>,
    pub(crate) keys: HashMap<String, KeyFn>,
    pub(crate) generation: u32,
}

impl<C> Routes<C> {
    /// The kinds, sorted, with what a replay may do with each.
    pub(crate) fn handlers(&self) -> Vec<(&'static str, OnReplay)> {
        let mut handlers: Vec<_> =
            self.by_kind.iter().map(|(kind, route)| (*kind, route.on_replay())).collect();
        handlers.sort_unstable_by_key(|(kind, _)| *kind);
        handlers
    }

    pub(crate) fn job(&self, incoming: &Incoming) -> Result<Job<C>, Refusal> {
        let Some(kind) = incoming.kind.as_deref() else {
            let detail = "the message names no kind (AMQP property `type`)";
            return Err(Refusal::new(Reason::UnknownKind, detail));
        };
        let Some(route) = self.by_kind.get(kind) else {
            return Err(Refusal::new(
                Reason::UnknownKind,
                format!("no handler is registered for kind {kind:?}"),
            ));
        };
        let job = route.job(incoming, self.keys.get(kind))?;
        Ok(Job { generation: self.generation, ..job })
    }
}

/// One kind with its handler.
pub(crate) trait Route<C>: Send + Sync {
    fn job(&self, incoming: &Incoming, key: Option<&KeyFn>) -> Result<Job<C>, Refusal>;

    fn on_replay(&self) -> OnReplay;
}

struct Typed<C, E> {
    on_replay: OnReplay,
    make: Make<C, E>,
}

pub(crate) fn of_closure<C, E, R, F>(on_replay: OnReplay, apply: F) -> Box<dyn Route<C>>
where
    C: 'static,
    E: Event + DeserializeOwned + Send + Sync + 'static,
    R: Serialize + 'static,
    F: Fn(&mut C, &E, &Context<'_>) -> Result<R, Failure> + Send + Sync + 'static,
{
    let apply = Arc::new(apply);
    Box::new(Typed::<C, E> {
        on_replay,
        make: Box::new(move |event| Box::new(Applied { event, apply: apply.clone() })),
    })
}

pub(crate) fn of_handler<C: 'static, H: Handler<C>>(handler: H) -> Box<dyn Route<C>> {
    let handler = Arc::new(handler);
    Box::new(Typed::<C, H::Event> {
        on_replay: H::ON_REPLAY,
        make: Box::new(move |event| {
            Box::new(Handled { event, handler: handler.clone(), prepared: Mutex::new(None) })
        }),
    })
}

impl<C, E: Event + DeserializeOwned> Route<C> for Typed<C, E> {
    fn job(&self, incoming: &Incoming, key: Option<&KeyFn>) -> Result<Job<C>, Refusal> {
        check_version(incoming, E::VERSION)?;
        let (event, fingerprint) = decode::<E>(incoming)?;
        let operation = key
            .and_then(|key| key(incoming))
            .or_else(|| incoming.named_operation.clone())
            .map_or_else(|| OperationKey::new(event.scope(), event.operation()), Ok)
            .map_err(|error| Refusal::new(Reason::NoOperation, error.to_string()))?;
        let ordering_key = event.ordering_key().filter(|key| usable(key)).map(Cow::into_owned);
        let (on_replay, work) = (self.on_replay, (self.make)(event));
        // The consumer's, which the routes know.
        let generation = 1;
        Ok(Job { operation, fingerprint, ordering_key, on_replay, generation, work })
    }

    fn on_replay(&self) -> OnReplay {
        self.on_replay
    }
}

fn check_version(incoming: &Incoming, newest: u32) -> Result<(), Refusal> {
    match incoming.headers.schema_version() {
        Some(version) if (1..=newest).contains(&version) => Ok(()),
        Some(version) => Err(Refusal::new(
            Reason::UnknownVersion,
            format!("schema version {version}; this handler knows 1 to {newest}"),
        )),
        None => {
            Err(Refusal::new(Reason::UnknownVersion, "the schema version header is not a number"))
        }
    }
}

fn decode<E: Event + DeserializeOwned>(incoming: &Incoming) -> Result<(E, Fingerprint), Refusal> {
    let undecodable =
        |error: serde_json::Error| Refusal::new(Reason::Undecodable, error.to_string());
    if let Some(fingerprint) = incoming.headers.fingerprint() {
        let event = serde_json::from_slice(&incoming.payload).map_err(undecodable)?;
        return Ok((event, fingerprint));
    }
    // A foreign producer's: parsed once, for both.
    let value: Value = serde_json::from_slice(&incoming.payload).map_err(undecodable)?;
    let fingerprint = Fingerprint::of_json(&value, E::fingerprint_excludes());
    let event = serde_json::from_value(value).map_err(undecodable)?;
    Ok((event, fingerprint))
}
